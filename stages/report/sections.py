"""The parts of the page, each an HTML string without anything from outside."""

import dataclasses
import json
from html import escape
from typing import Any

from stages.report import charts
from stages.report.html import Cell, card, folded, paragraph, stack, table
from stages.report.rates import Rate, by_kind, categories, files, length_bands
from stages.report.read import Run
from stages.report.verdict import headline, sentences, standing
from stages.report.words import WHEN, Words, bare_interval, both, count, feature, label, percent, plain, say, signed

HEX_DIGITS = 16
OPEN_ERRORS = 6  # of a kind; the others are folded
SYSTEM_HEAD: tuple[Cell, ...] = (
    Words("系统", "system"),
    Words("平均精确率 [95 % 区间]", "average precision [95 % interval]"),
    "F1",
    Words("精确率", "precision"),
    Words("召回率", "recall"),
    Words("误报 / 1,000", "false alarms / 1,000"),
    Words("阈值", "threshold"),
)
SETS = {"train": Words("训练集", "train"), "valid": Words("验证集", "valid"), "test": Words("测试集", "test")}
LEAKS = {
    "verbatim": Words("完全相同", "verbatim"),
    "near": Words("近似重复", "near duplicate"),
    "contained": Words("互相包含", "contained"),
    "case": Words("同一案例", "same case"),
}


def verdict(run: Run) -> str:
    lines = "".join(f"<li>{both(words)}</li>" for words in sentences(run))
    kind = {"ahead": "good", "behind": "bad"}.get(standing(run), "open")
    return (
        f'<section class="card verdict-card {kind}"><h2 class="quiet small">{both(Words("结论", "Verdict"))}</h2>'
        f'<p class="headline">{both(headline(run))}</p><ul>{lines}</ul></section>'
    )


def tiles(run: Run) -> str:
    """The four numbers that most people look for."""
    block, ahead = run.evaluate[run.used], run.evaluate.get("ahead", {}).get(run.compared, {})
    found: list[tuple[Words, str, Cell]] = []
    if "average_precision" in ahead:
        found.append(
            (
                Words("平均精确率之差", "Average precision, difference"),
                signed(ahead["average_precision"]),
                bare_interval(ahead, "average_precision", 3, 1),
            )
        )
    if block["tp"] + block["fn"]:
        found.append((Words("找出的诈骗", "Fraud found"), percent(block["recall"]), bare_interval(block, "recall")))
    if block["fp"] + block["tn"]:
        found.append(
            (
                Words("每 1,000 条正常文本误报", "Flagged of 1,000 harmless"),
                count(block["false_alarms_per_1000"]),
                bare_interval(block, "false_alarms_per_1000", 0, 1),
            )
        )
    if block["tp"] + block["fp"]:
        found.append(
            (Words("告警属实", "Alarms that are right"), percent(block["precision"]), bare_interval(block, "precision"))
        )
    inside = "".join(
        f'<div class="tile"><span class="quiet small">{both(name)}</span><strong>{both(value)}</strong>'
        f'<span class="quiet small">{both(note)}</span></div>'
        for name, value, note in found
    )
    return f'<div class="tiles">{inside}</div>'


def ladder(run: Run) -> str:
    """All systems against the best cheap one."""
    ahead = run.evaluate.get("ahead", {})
    rows = [
        (
            label(name),
            ahead[name]["average_precision"],
            ahead[name].get("average_precision_low"),
            ahead[name].get("average_precision_high"),
        )
        for name in run.systems
        if "average_precision" in ahead.get(name, {})
    ]
    zero = say("0 = {cheap}", "0 = {cheap}", cheap=label(run.best_cheap))
    note = say(
        "平均精确率之差及其 95 % 区间。区间跨过 0 表示未分高下。{cheap}在查看测试集之前就已选定。",
        "Difference in average precision, with its 95 % interval. An interval across 0 shows no difference. "
        "The {cheap} was chosen before test was looked at.",
        cheap=label(run.best_cheap),
    )
    body: list[list[Cell]] = [
        [label(name), difference(ahead.get(name, {})), *system_cells(run.evaluate[name])] for name in run.systems
    ]
    head: list[Cell] = [SYSTEM_HEAD[0], Words("差值 [95 % 区间]", "difference [95 % interval]"), *SYSTEM_HEAD[1:]]
    chart = charts.forest(rows, zero) if rows else ""
    return card(
        Words("各系统的阶梯", "The ladder of systems"),
        paragraph(note, "quiet small"),
        chart,
        table(head, body),
        css="wide",
    )


def system_cells(block: dict[str, Any]) -> list[str]:
    """A system's figures under SYSTEM_HEAD. A figure that it lacks is a dash."""

    def number(name: str, digits: int = 3) -> str:
        value = block.get(name)
        return "–" if value is None else f"{value:,.{digits}f}"

    name = "average_precision"
    ends = f" [{number(f'{name}_low')}, {number(f'{name}_high')}]" if f"{name}_low" in block else ""
    decisions = [number(each) for each in ("f1", "precision", "recall")]
    return [number(name) + ends, *decisions, number("false_alarms_per_1000", 0), number("threshold")]


def difference(ahead: dict[str, float]) -> str:
    """A system minus the best cheap one, in average precision."""
    name = "average_precision"
    if name not in ahead:
        return "–"
    ends = f" [{signed(ahead[f'{name}_low'])}, {signed(ahead[f'{name}_high'])}]" if f"{name}_low" in ahead else ""
    return signed(ahead[name]) + ends


def reliability(run: Run) -> str:
    """Whether a probability means what it says."""
    block = run.evaluate["model"]
    note = Words(
        "点在对角线上，概率就可信：0.8 表示 100 条中约 80 条是诈骗。",
        "On the diagonal a probability is right: of texts with 80 %, 80 of 100 are fraud.",
    )
    keys = [
        ("own strong", Words("微调模型", "fine-tuned model")),
        ("none thin", Words("校准之前", "before calibration")),
    ]
    parts = [charts.reliability(run.reliability), charts.legend(keys), paragraph(note, "quiet small")]
    if "calibration_error" in block:
        words = say(
            "校准误差 {after}（校准前 {before}），Brier 分数 {brier}。",
            "Calibration error {after} (before calibration {before}), Brier score {brier}.",
            after=f"{block['calibration_error']:.3f}",
            before=f"{block['calibration_error_before']:.3f}",
            brier=f"{block['brier']:.3f}",
        )
        parts.append(paragraph(words, "small"))
    return card(Words("概率可信吗", "Are the probabilities right?"), *parts)


def lengths(run: Run) -> str:
    """How long the texts are, and how the system in use does by length."""
    rows = [(float(row["characters"]), int(row["fraud"]), int(row["not fraud"])) for row in run.tables["lengths"]]
    bands, labels = length_bands(run), run.labels
    found = {each.name: each for each in by_kind(run, bands, labels)}
    flagged = {each.name: each for each in by_kind(run, bands, ~labels)}
    body = [
        [
            band_name(name),
            *(rate_cell(each.get(name)) for each in (found, flagged)),
        ]
        for name in sorted({*found, *flagged})
    ]
    head = [Words("字符数", "characters"), Words("找出的诈骗", "fraud found"), Words("正常被误报", "harmless flagged")]
    keys = [
        ("fraud strong", Words("诈骗", "fraud")),
        ("harmless strong", Words("正常", "harmless")),
    ]
    chart = charts.lengths(rows) if rows else ""
    note = Words("最后一点含所有更长的文本。", "The last point holds all longer texts.")
    parts = (chart, charts.legend(keys), paragraph(note, "quiet small"), table(head, body))
    return card(Words("文本长度", "Lengths"), *parts)


def band_name(name: str) -> str:
    """A band of lengths without leading zeros.

    >>> band_name("0051-0100"), band_name("0401 or more")
    ('51–100', '401 +')
    """
    low, _, high = name.removesuffix(" or more").partition("-")
    return f"{int(low)}–{int(high)}" if high else f"{int(low)} +"


def rate_cell(each: Rate | None) -> str:
    if each is None:
        return "–"
    return f"{percent(each.share, 0)} ({each.happened}/{each.rows}; {100 * each.low:.0f}–{100 * each.high:.0f})"


def kinds(run: Run) -> str:
    """Recall by category of fraud; beside it false alarms by kind of harmless text, leaks and shortcuts."""
    labels = run.labels
    note = Words(
        "横线是 95 % 区间（Wilson，按单元计数），阈值视为固定。",
        "Lines are 95 % intervals (Wilson, over units), at a fixed threshold.",
    )
    found, left = by_kind(run, categories(run), labels)[::-1], []
    if found:
        title = Words("各类诈骗的召回率", "Recall by kind of fraud")
        left = [card(title, charts.rates(found, "caught", title), paragraph(note, "quiet small"))]
    parts = []
    for title, names in ((Words("按类别", "by kind"), categories(run)), (Words("按文件", "by file"), files(run))):
        if flagged := by_kind(run, names, ~labels):
            parts += [f"<h3>{both(title)}</h3>", charts.rates(flagged, "alarm", title)]
    right = [card(Words("正常文本的误报", "False alarms by kind of harmless text"), *parts)] if parts else []
    return stack(*left) + stack(*right, leaks(run), shortcuts(run))


def leaks(run: Run) -> str:
    """How many held-out rows training has seen."""
    rows = []
    for row in run.tables["leaks"]:
        part, _, kind = row["leak"].partition(": ")
        where, _, seen = kind.partition(" in ")
        rows.append([SETS.get(part, part), LEAKS.get(where, Words(where, where)), SETS.get(seen, seen), row["rows"]])
    head = [Words("文本属于", "texts of"), Words("方式", "how"), Words("出现在", "appear in"), Words("条数", "rows")]
    dropped = run.data.get("dropped", {})
    note = say(
        "另有：读不了的行 {rejected}，标签冲突而去掉的行 {conflicting}。",
        "Also: {rejected} rows could not be read, {conflicting} were dropped for conflicting labels.",
        rejected=count(run.data.get("rejected", 0)),
        conflicting=count(dropped.get("conflicting", 0)),
    )
    return card(Words("泄漏", "Leaks"), table(head, rows, right=3), paragraph(note, "quiet small"))


def shortcuts(run: Run) -> str:
    """The single features that give the label away."""
    always = (run.data.get("shortcuts") or {}).get("always_fraud_f1")
    rows: list[list[Cell]] = [
        [feature(row["feature"]), WHEN[row["fraud_if"]], f"{float(row['f1']):.3f}", percent(float(row["share"]))]
        for row in run.tables["shortcuts"]
    ]
    head: list[Cell] = [Words("特征", "feature"), Words("诈骗当", "fraud if"), "F1", Words("占文本", "of texts")]
    parts = [table(head, rows, right=2)]
    if always is not None:
        note = say(
            "验证集上只看一个特征的 F1。全部判为诈骗得 {always}。",
            "F1 on valid of one feature alone. Calling everything fraud has {always}.",
            always=f"{always:.3f}",
        )
        parts.insert(0, paragraph(note, "quiet small"))
    return card(Words("捷径", "Shortcuts"), *parts)


def further(run: Run) -> str:
    """The systems on each further set."""
    parts = []
    for name, block in sorted(run.evaluate.get("further", {}).items()):
        systems = [system for system in run.systems if system in block]
        body: list[list[Cell]] = [[label(system), *system_cells(block[system])] for system in systems]
        title = f"<h3><bdi>{escape(plain(name))}</bdi> · {count(block['size']['rows'])}</h3>"
        parts += [title, table(SYSTEM_HEAD, body)]
    return card(Words("其他数据集", "Further sets"), *parts, css="wide") if parts else ""


def errors(run: Run) -> str:
    """The surest mistakes of the model, to be read."""
    titles = {"false alarm": Words("误报：正常文本", "False alarms"), "miss": Words("漏报：诈骗文本", "Misses")}
    parts = []
    for kind, title in titles.items():
        items = [error_item(row) for row in run.errors if row["set"] == "test" and row["error"] == kind]
        if items:
            parts += [f"<h3>{both(title)}</h3>", f'<ol class="errors">{"".join(items[:OPEN_ERRORS])}</ol>']
        if rest := items[OPEN_ERRORS:]:
            more = say("其余 {rest} 条", "{rest} more", rest=count(len(rest)))
            listed = f'<ol class="errors" start="{OPEN_ERRORS + 1}">{"".join(rest)}</ol>'
            parts.append(folded(more, listed))
    if not parts:
        parts = [paragraph(Words("没有错误。", "There are none."))]
    note = Words("模型最有把握却判错的测试文本。", "The texts of test that the model was surest of and got wrong.")
    return card(Words("值得一读的错误", "Errors to read"), paragraph(note, "quiet small"), *parts, css="wide")


def error_item(row: dict[str, str]) -> str:
    about: list[Cell] = [
        say("模型 {p}", "model {p}", p=percent(float(row["probability"]))),
        say("基线 {p}", "baseline {p}", p=percent(float(row["baseline_probability"]))),
        row["category"],
        row["source"],
        *([say("泄漏：{kind}", "leaks: {kind}", kind=row["leak"])] if row["leak"] else []),
    ]
    head = " · ".join(f"<bdi>{both(each)}</bdi>" for each in about if each)
    return f'<li><p class="quiet small">{head}</p><p class="sample" dir="auto">{escape(plain(row["input"]))}</p></li>'


def provenance(run: Run) -> str:
    """Which data, model and params made the figures."""
    base, versions = run.record["base"], run.evaluate["environment"]
    size = {name: count(run.evaluate["size"][name]) for name in ("rows", "units")}
    rows: list[list[Cell]] = [
        [Words("数据集", "data set"), run.params.dataset_name],
        [Words("测试集", "test"), say("{rows} 条，{units} 个单元", "{rows} rows, {units} units", **size)],
        [Words("基础模型", "base model"), f"{base['id']} @ {base['revision'][:HEX_DIGITS]}"],
        [Words("方法", "method"), run.record["method_name"]],
        [Words("在用系统", "system in use"), label(run.used)],
    ]
    rows += [[path, f"sha256 {digest[:HEX_DIGITS]}"] for path, digest in run.hashes.items()]
    rows += [[name, str(version)] for name, version in sorted(versions.items())]
    head: list[Cell] = [Words("什么", "what"), Words("哪一个", "which")]
    flat = [[key, value] for key, value in flat_params(run)]
    return card(
        Words("来历", "Provenance"),
        table(head, rows, right=9),
        folded(
            Words("全部参数", "All parameters"),
            table([Words("参数", "parameter"), Words("值", "value")], flat, right=9),
        ),
        css="wide",
    )


def flat_params(run: Run) -> list[tuple[str, str]]:
    """The parameters that the figures depend on, by dotted name."""
    chosen = run.params
    parts = {
        f"datasets.{chosen.dataset_name}": chosen.dataset,
        f"models.{chosen.model_name}": chosen.model,
        f"methods.{chosen.method_name}": chosen.method,
        **{name: getattr(chosen, name) for name in ("prompt", "prepare", "train", "select", "evaluate")},
    }
    return [
        (f"{part}.{key}", json.dumps(value, ensure_ascii=False, sort_keys=True))
        for part, fields in parts.items()
        for key, value in sorted(dataclasses.asdict(fields).items())
    ]
