"""Recall by kind of fraud, false alarms by kind of harmless text, leaks and shortcuts."""

from stages.report import charts
from stages.report.html import Cell, card, paragraph, table
from stages.report.rates import by_kind, categories, files
from stages.report.read import Run
from stages.report.words import WHEN, Words, both, count, feature, percent, say

WILSON = Words(
    "横线是 95\u00a0% 区间（Wilson，按单元计数），阈值视为固定。",
    "Lines are 95\u00a0% intervals (Wilson, over units), at a fixed threshold.",
)
SETS = {"train": Words("训练集", "train"), "valid": Words("验证集", "valid"), "test": Words("测试集", "test")}
LEAKS = {
    "verbatim": Words("完全相同", "verbatim"),
    "near": Words("近似重复", "near"),
    "contained": Words("互相包含", "contained"),
    "case": Words("同一案例", "same case"),
}


def recall(run: Run) -> str:
    """Recall by category of fraud, the lowest first."""
    found = by_kind(run, categories(run), run.labels)[::-1]
    if not found:
        return ""
    title = Words("各类诈骗的召回率", "Recall by kind of fraud")
    return card(title, charts.rates(found, "caught", title), paragraph(WILSON, "quiet small"))


def false_alarms(run: Run) -> str:
    """False alarms by category of harmless text and by file, the highest first."""
    parts = []
    for title, names in ((Words("按类别", "by kind"), categories(run)), (Words("按文件", "by file"), files(run))):
        if flagged := by_kind(run, names, ~run.labels):
            parts += [f"<h3>{both(title)}</h3>", charts.rates(flagged, "alarm", title)]
    if not parts:
        return ""
    title = Words("正常文本的误报", "False alarms by kind of harmless text")
    return card(title, *parts, paragraph(WILSON, "quiet small"))


def leaks(run: Run) -> str:
    """How many held-out rows training has seen, by how."""
    counts: dict[tuple[str, str], dict[str, str]] = {}
    for row in run.tables["leaks"]:
        part, _, kind = row["leak"].partition(": ")
        how, _, seen = kind.partition(" in ")
        counts.setdefault((part, seen), {})[how] = row["rows"]
    kinds = list(dict.fromkeys(how for found in counts.values() for how in found))
    rows: list[list[Cell]] = [
        [
            say("{part}，见于{seen}", "{part}, seen in {seen}", part=SETS.get(part, part), seen=SETS.get(seen, seen)),
            *(found.get(how, "–") for how in kinds),
        ]
        for (part, seen), found in counts.items()
    ]
    note = say(
        "另有：读不了的行 {rejected}，标签冲突而去掉的行 {conflicting}。",
        "Also: {rejected} rows could not be read, {conflicting} were dropped for conflicting labels.",
        rejected=count(run.data.get("rejected", 0)),
        conflicting=count(run.data.get("dropped", {}).get("conflicting", 0)),
    )
    found = table([Words("条数", "rows"), *(LEAKS.get(how, how) for how in kinds)], rows)
    return card(Words("泄漏", "Leaks"), found, paragraph(note, "quiet small"))


def shortcuts(run: Run) -> str:
    """The single features that give the label away."""
    always = (run.data.get("shortcuts") or {}).get("always_fraud_f1")
    rows: list[list[Cell]] = [
        [feature(row["feature"]), WHEN[row["fraud_if"]], f"{float(row['f1']):.3f}", percent(float(row["share"]))]
        for row in run.tables["shortcuts"]
    ]
    head: list[Cell] = [Words("特征", "feature"), Words("何时判为诈骗", "fraud if"), "F1", Words("占文本", "of texts")]
    parts = [table(head, rows, right=2)]
    if always is not None:
        note = say(
            "验证集上只看一个特征的 F1。全部判为诈骗得 {always}。",
            "F1 on valid of one feature alone. Calling everything fraud has {always}.",
            always=f"{always:.3f}",
        )
        parts.insert(0, paragraph(note, "quiet small"))
    return card(Words("捷径", "Shortcuts"), *parts)
