"""The parts of the page, each an HTML string without anything from outside."""

import dataclasses
import itertools
import json
from collections.abc import Iterable
from html import escape
from typing import Any

from stages.report import charts
from stages.report.rates import Point, Rate, by_kind, categories, cheapest, costs, files, length_bands, points
from stages.report.read import Run
from stages.report.verdict import headline, sentences, standing
from stages.report.words import Words, both, count, interval_of, label, percent, plain, say, signed

Cell = str | Words
HEX_DIGITS = 16
COST_PAIRS = ((1, 1), (5, 1), (10, 1), (1, 5), (1, 10))  # of a false alarm and of a miss
LEAKS = {
    "verbatim": Words("完全相同", "verbatim"),
    "near": Words("近似重复", "near duplicate"),
    "contained": Words("互相包含", "contained"),
    "case": Words("同一案例", "same case"),
}


def card(title: Words, *parts: str, css: str = "") -> str:
    """A part of the page under a heading.

    Args:
        title: the heading.
        parts: HTML.
        css: further classes.
    """
    return f'<section class="card {css}"><h2>{both(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def paragraph(words: Cell, css: str = "") -> str:
    return f'<p class="{css}">{both(words)}</p>' if css else f"<p>{both(words)}</p>"


def table(head: Iterable[Cell], rows: Iterable[Iterable[Cell]], right: int = 1) -> str:
    """A table of plain text.

    Args:
        head: names of the columns.
        rows: their cells.
        right: from this column on, cells are numbers and stand on the right.
    """

    def cells(row: Iterable[Cell], tag: str) -> str:
        marks = (' class="right"' if number >= right else "" for number in itertools.count())
        return "".join(f"<{tag}{mark}>{both(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=False))

    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    )


def folded(title: Words, content: str) -> str:
    return f"<details><summary>{both(title)}</summary>{content}</details>"


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
                interval_of(ahead, "average_precision", 3, 1),
            )
        )
    if block["tp"] + block["fn"]:
        found.append((Words("找出的诈骗", "Fraud found"), percent(block["recall"]), interval_of(block, "recall")))
    if block["fp"] + block["tn"]:
        found.append(
            (
                Words("每 1,000 条正常文本误报", "Flagged of 1,000 harmless"),
                count(block["false_alarms_per_1000"]),
                interval_of(block, "false_alarms_per_1000", 0, 1),
            )
        )
    if block["tp"] + block["fp"]:
        found.append(
            (Words("告警属实", "Alarms that are right"), percent(block["precision"]), interval_of(block, "precision"))
        )
    inside = "".join(
        f'<div class="tile"><span class="quiet small">{both(name)}</span><strong>{both(value)}</strong>'
        f'<span class="quiet small">{both(note).replace("（", "").replace("）", "").replace(" (", "").replace(")", "")}'
        "</span></div>"
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
        "Difference in average precision, with its 95 % interval. An interval across 0 shows no difference. The {cheap} "
        "was chosen before test was looked at.",
        cheap=label(run.best_cheap),
    )
    head = [
        Words("系统", "system"),
        Words("平均精确率", "average precision"),
        Words("95 % 区间", "95 % interval"),
        "F1",
        Words("精确率", "precision"),
        Words("召回率", "recall"),
        Words("误报 / 1,000", "false alarms / 1,000"),
        Words("阈值", "threshold"),
    ]
    body = [[label(name), *system_cells(run.evaluate[name])] for name in run.systems]
    chart = charts.forest(rows, zero) if rows else ""
    return card(
        Words("各系统的阶梯", "The ladder of systems"),
        paragraph(note, "quiet small"),
        chart,
        table(head, body),
        css="wide",
    )


def system_cells(block: dict[str, Any]) -> list[str]:
    def number(name: str, digits: int = 3) -> str:
        value = block.get(name)
        return "–" if value is None else f"{value:,.{digits}f}"

    low, high = number("average_precision_low"), number("average_precision_high")
    return [
        number("average_precision"),
        f"{low}–{high}" if low != "–" else "–",
        number("f1"),
        number("precision"),
        number("recall"),
        number("false_alarms_per_1000", 0),
        number("threshold"),
    ]


def all_points(run: Run) -> dict[str, list[Point]]:
    """The thresholds of each system that has some; none where test has a single class."""
    if run.labels.all() or not run.labels.any():
        return {}
    found = {system: points(run, system) for system in run.systems}
    return {system: curve for system, curve in found.items() if curve}


def own_point(run: Run, system: str, curve: list[Point]) -> int:
    """The index of the system's own threshold."""
    return next(n for n, point in enumerate(curve) if point.threshold == run.evaluate[system]["threshold"])


def threshold(run: Run) -> str:
    """Precision by recall, and a slider over the thresholds."""
    curves = all_points(run)
    if run.used not in curves:
        return ""
    own = {system: curve[own_point(run, system, curve)] for system, curve in curves.items()}
    size = int(run.labels.sum()), int((~run.labels).sum())
    keys = [
        ("own strong" if name == run.used else charts.LINES.get(name, "cheap thin"), label(name)) for name in curves
    ]
    note = Words("圆点是各系统自己的阈值。", "The dots are the systems' own thresholds.")
    chart = charts.precision_recall(curves, size, own, run.used)
    left = card(
        Words("精确率与召回率", "Precision and recall"), chart, charts.legend(keys), paragraph(note, "quiet small")
    )
    return left + card(Words("阈值的代价", "What a threshold costs"), slider(run, curves), cost_table(run, curves))


def slider(run: Run, curves: dict[str, list[Point]]) -> str:
    """The controls, filled in for the system in use at its threshold; page.js keeps them up to date."""
    choices = "".join(
        f'<option value="{name}"{" selected" if name == run.used else ""}>{escape(label(name).zh)} · '
        f"{escape(label(name).en)}</option>"
        for name in curves
    )
    at, share = own_point(run, run.used, curves[run.used]), run.evaluate["size"]["fraud_fraction"]
    point = curves[run.used][at]
    now = costs(run, point, share, 1, 1)
    fields = (
        ("share", Words("诈骗所占比例，%", "Share of fraud, %"), f"{100 * share:g}", 100),
        ("false-alarm", Words("一次误报的代价", "Cost of a false alarm"), "1", 10**9),
        ("miss", Words("一次漏报的代价", "Cost of a miss"), "1", 10**9),
    )
    inputs = "".join(
        f'<label><span>{both(words)}</span><input id="{name}" type="number" min="0" max="{most}" step="any" '
        f'value="{value}" inputmode="decimal"></label>'
        for name, words, value, most in fields
    )
    outs = (
        ("alarms", Words("每 1,000 条文本的告警", "Alarms per 1,000 texts"), f"{now.alarms:.1f}"),
        ("false-alarms", Words("其中误报", "of them false"), f"{now.false_alarms:.1f}"),
        ("misses", Words("漏报", "Misses"), f"{now.misses:.1f}"),
        ("cost", Words("代价", "Cost"), f"{now.cost:.1f}"),
        ("right", Words("告警属实", "Alarms that are right"), percent(run.evaluate[run.used]["precision"])),
        ("found", Words("找出的诈骗", "Fraud found"), percent(run.evaluate[run.used]["recall"])),
    )
    results = "".join(f'<div><dt>{both(words)}</dt><dd id="{name}">{value}</dd></div>' for name, words, value in outs)
    shown = "–" if point.threshold > 1 else f"{point.threshold:.3f}"
    return (
        f'<div class="fields controls"><label><span>{both(Words("系统", "System"))}</span>'
        f'<select id="system">{choices}</select></label>{inputs}</div>\n'
        f'<div class="slider"><label for="threshold">{both(Words("阈值", "Threshold"))}</label>'
        f'<input id="threshold" type="range" min="0" max="{len(curves[run.used]) - 1}" step="1" value="{at}">'
        f'<output id="threshold-value">{shown}</output></div>\n<div class="row controls">'
        f'<button type="button" id="own">{both(Words("系统自己的阈值", "The system’s own"))}</button>'
        f'<button type="button" id="cheapest">{both(Words("代价最低", "Lowest cost"))}</button></div>\n'
        f'<dl class="results" aria-live="polite">{results}</dl>'
    )


def cost_table(run: Run, curves: dict[str, list[Point]]) -> str:
    """The best threshold for some costs, so that a print shows it too."""
    size, share = (int(run.labels.sum()), int((~run.labels).sum())), run.evaluate["size"]["fraud_fraction"]
    rows = []
    for false_alarm, miss in COST_PAIRS:
        best = cheapest(run, curves[run.used], share, false_alarm, miss)
        cost = costs(run, best, share, false_alarm, miss).cost
        at = "> 1" if best.threshold > 1 else f"{best.threshold:.3f}"
        found = [at, percent(best.tp / size[0]), count(1000 * best.fp / size[1]), count(cost)]
        rows.append([f"{false_alarm} : {miss}", *found])
    head = [
        Words("误报 : 漏报", "false alarm : miss"),
        Words("最佳阈值", "best threshold"),
        Words("找出", "found"),
        Words("误报 / 1,000 正常", "flagged / 1,000 harmless"),
        Words("代价 / 1,000", "cost / 1,000"),
    ]
    note = Words(
        "最佳阈值选自测试集，略偏乐观。要改用它，请设置 select.threshold: min_cost 和 select.cost。",
        "The best thresholds are chosen on test, which flatters them slightly. To use one, set select.threshold: min_cost "
        "and select.cost.",
    )
    return table(head, rows) + paragraph(note, "quiet small")


def reliability(run: Run) -> str:
    """Whether a probability means what it says."""
    block = run.evaluate["model"]
    note = Words(
        "点在对角线上，概率就可信：0.8 表示 100 条中约 80 条是诈骗。",
        "On the diagonal a probability is right: of texts with 80 %, 80 of 100 are fraud.",
    )
    keys: list[tuple[str, str | Words]] = [
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
            name.replace("or more", "+").replace("-", "–").lstrip("0") or "0",
            *(rate_cell(each.get(name)) for each in (found, flagged)),
        ]
        for name in sorted({*found, *flagged})
    ]
    head = [Words("字符数", "characters"), Words("找出的诈骗", "fraud found"), Words("正常被误报", "harmless flagged")]
    keys: list[tuple[str, str | Words]] = [
        ("fraud strong", Words("诈骗", "fraud")),
        ("harmless strong", Words("正常", "harmless")),
    ]
    chart = charts.lengths(rows) if rows else ""
    return card(Words("文本长度", "Lengths"), chart, charts.legend(keys), table(head, body))


def rate_cell(each: Rate | None) -> str:
    if each is None:
        return "–"
    return f"{percent(each.share, 0)} ({each.happened}/{each.rows}; {100 * each.low:.0f}–{100 * each.high:.0f})"


def kinds(run: Run) -> str:
    """Recall by category of fraud, and false alarms by kind of harmless text."""
    labels = run.labels
    note = Words(
        "横线是 95 % 区间（Wilson，按单元计数），阈值视为固定。",
        "Lines are 95 % intervals (Wilson, over units), at a fixed threshold.",
    )
    found = by_kind(run, categories(run), labels)[::-1]
    left, right = "", ""
    if found:
        title = Words("各类诈骗的召回率", "Recall by kind of fraud")
        left = card(title, charts.rates(found, "caught", title), paragraph(note, "quiet small"))
    parts = []
    for title, names in (
        (Words("按类别", "by kind"), categories(run)),
        (Words("按文件", "by file"), files(run)),
        (Words("按字符数", "by characters"), length_bands(run)),
    ):
        if flagged := by_kind(run, names, ~labels):
            parts += [f"<h3>{both(title)}</h3>", charts.rates(flagged, "alarm", title)]
    if parts:
        right = card(Words("正常文本的误报", "False alarms by kind of harmless text"), *parts)
    return left + right


def leaks(run: Run) -> str:
    """How many held-out rows training has seen."""
    rows = []
    for row in run.tables["leaks"]:
        part, _, kind = row["leak"].partition(": ")
        where, _, seen = kind.partition(" in ")
        rows.append([part, LEAKS.get(where, Words(where, where)), seen, row["rows"]])
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
    rows = [
        [row["feature"], row["fraud_if"], f"{float(row['f1']):.3f}", percent(float(row["share"]))]
        for row in run.tables["shortcuts"]
    ]
    head = [Words("特征", "feature"), Words("诈骗当", "fraud if"), "F1", Words("占文本", "of texts")]
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
        body = [[label(system), *system_cells(block[system])] for system in run.systems if system in block]
        head = [
            Words("系统", "system"),
            Words("平均精确率", "average precision"),
            Words("95 % 区间", "95 % interval"),
            "F1",
            Words("精确率", "precision"),
            Words("召回率", "recall"),
            Words("误报 / 1,000", "false alarms / 1,000"),
            Words("阈值", "threshold"),
        ]
        title = f"<h3><bdi>{escape(plain(name))}</bdi> · {count(block['size']['rows'])}</h3>"
        parts += [title, table(head, body)]
    return card(Words("其他数据集", "Further sets"), *parts, css="wide") if parts else ""


def errors(run: Run) -> str:
    """The surest mistakes of the model, to be read."""
    titles = {"false alarm": Words("误报：正常文本", "False alarms"), "miss": Words("漏报：诈骗文本", "Misses")}
    parts = []
    for kind, title in titles.items():
        rows = [row for row in run.errors if row["set"] == "test" and row["error"] == kind]
        items = "".join(error_item(row) for row in rows)
        if items:
            parts.append(f"<h3>{both(title)} ({len(rows)})</h3><ol class='errors'>{items}</ol>")
    if not parts:
        parts = [paragraph(Words("没有错误。", "There are none."))]
    note = Words("模型最有把握却判错的测试文本。", "The texts of test that the model was surest of and got wrong.")
    return card(Words("值得一读的错误", "Errors to read"), paragraph(note, "quiet small"), *parts, css="wide")


def error_item(row: dict[str, str]) -> str:
    about = [
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
    rows: list[list[Cell]] = [
        [Words("数据集", "data set"), run.params.dataset_name],
        [
            Words("测试集", "test"),
            f"{count(run.evaluate['size']['rows'])} / {count(run.evaluate['size']['units'])} units",
        ],
        [Words("基础模型", "base model"), f"{base['id']} @ {base['revision'][:HEX_DIGITS]}"],
        [Words("方法", "method"), run.record["method_name"]],
        [Words("在用系统", "system in use"), label(run.used)],
        *([path, f"sha256 {digest[:HEX_DIGITS]}"] for path, digest in run.hashes.items()),
        *([name, str(version)] for name, version in sorted(versions.items())),
    ]
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
