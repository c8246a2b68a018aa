"""The parts of the page, each an HTML string without anything from outside."""

import dataclasses
import json
from collections.abc import Callable
from html import escape
from typing import Any

from stages.report import charts
from stages.report.facts import facts, made_of
from stages.report.html import Cell, card, folded, paragraph, table
from stages.report.rates import Rate, by_kind, length_bands
from stages.report.read import Run, figure, systems_of
from stages.report.verdict import ahead_of, headline, sentences, standing_of
from stages.report.words import Words, bare_interval, both, count, label, percent, plain, say, signed

HEX_DIGITS = 16
BEYOND = Words(
    "图边的“<”或“>”表示该值在坐标轴之外，数值见右侧。",
    "A “<” or “>” at the edge of the chart: the value lies beyond the axis. The figure on the right is exact.",
)
SYSTEM_HEAD: tuple[Cell, ...] = (
    Words("系统", "system"),
    Words("平均精确率 [95\u00a0% 区间]", "average precision [95\u00a0% interval]"),
    "F1",
    Words("精确率", "precision"),
    Words("召回率", "recall"),
    Words("误报 / 1,000", "false alarms / 1,000"),
    Words("阈值", "threshold"),
)


def verdict(run: Run) -> str:
    """The headline, what it rests on, and the four numbers that most people look for."""
    lines = "".join(f"<p>{both(words)}</p>" for words in sentences(run))
    kind = {"ahead": "good", "behind": "bad"}.get(standing_of(run), "open")
    return (
        f'<section class="card verdict-card {kind}"><h2 class="quiet small">{both(Words("结论", "Verdict"))}</h2>'
        f'<p class="headline">{both(headline(run))}</p>{lines}</section>{tiles(run)}'
    )


def tiles(run: Run) -> str:
    """Four numbers, each with its interval and, where another system is in use, that of the best cheap one."""
    block, ahead = run.evaluate[run.used], ahead_of(run)
    fraud = run.evaluate["size"]["fraud_fraction"]
    found: list[tuple[Words, str, list[Cell]]] = []
    if "average_precision" in ahead:
        title = Words("平均精确率之差", "Average precision, difference")
        to = say("与{cheap}相比", "to {cheap}", cheap=label(run.best_cheap))
        notes: list[Cell] = [bare_interval(ahead, "average_precision", "."), to]
        found.append((title, signed(ahead["average_precision"]), notes))
    for name, title, unit in (
        ("recall", Words("找出的诈骗", "Fraud found"), "%"),
        ("false_alarms_per_1000", Words("每 1,000 条正常文本误报", "Flagged of 1,000 harmless"), ""),
        ("precision", Words("告警属实", "Alarms that are right"), "%"),
    ):
        show = percent if unit else count
        other = figure(run.evaluate[run.best_cheap], name)
        notes = [bare_interval(block, name, unit)]
        if run.used != run.best_cheap and other is not None:
            notes.append(say("{cheap}：{other}", "{cheap}: {other}", cheap=label(run.best_cheap), other=show(other)))
        if name == "precision":
            notes.append(say("诈骗占 {share} 时", "at {share} fraud, as in test", share=percent(fraud)))
        if (value := figure(block, name)) is not None:
            found.append((title, show(value), notes))
    inside = "".join(
        f'<div class="tile"><span class="quiet small">{both(name)}</span><strong>{both(value)}</strong>'
        + "".join(f'<span class="quiet small">{both(note)}</span>' for note in notes)
        + "</div>"
        for name, value, notes in found
    )
    return f'<div class="tiles">{inside}</div>'


def answers(run: Run) -> str:
    """What else to know, as questions and answers."""
    rows = "".join(f"<div><dt>{both(title)}</dt><dd>{both(words)}</dd></div>" for title, words in facts(run))
    return card(Words("其他须知", "What else to know"), f'<dl class="facts">{rows}</dl>', css="wide")


def ladder(run: Run) -> str:
    """All systems against the best cheap one."""
    note = say(
        "平均精确率之差及其 95\u00a0% 区间，按未取整的数字计算。区间跨过 0，就说明不了谁更好。"
        "{cheap}在查看测试集之前就已选定。",
        "Difference in average precision with its 95\u00a0% interval, from the figures before rounding. "
        "An interval across 0 does not show which is better. The {cheap} was chosen before test was looked at.",
        cheap=label(run.best_cheap),
    )
    return card(
        Words("各系统的阶梯", "The ladder of systems"),
        paragraph(note, "quiet small"),
        *compared(run.evaluate, run.best_cheap, run.used),
        css="wide",
    )


def compared(block: dict[str, Any], best_cheap: str, used: str) -> list[str]:
    """A forest plot of the systems and the table of their figures.

    Args:
        block: figures by system, and `ahead`.
        best_cheap: what they are compared with.
        used: the system whose row is set off.
    """
    ahead, systems, name = block.get("ahead", {}), systems_of(block), "average_precision"
    rows = [
        (label(system), less[name], less.get(f"{name}_low"), less.get(f"{name}_high"))
        for system in systems
        if name in (less := ahead.get(system, {}))
    ]
    zero = say("0 = {cheap}", "0 = {cheap}", cheap=label(best_cheap))
    body: list[list[Cell]] = [
        [label(system), difference(ahead.get(system, {})), *system_cells(block[system])] for system in systems
    ]
    head: list[Cell] = [
        SYSTEM_HEAD[0],
        Words("差值 [95\u00a0% 区间]", "difference [95\u00a0% interval]"),
        *SYSTEM_HEAD[1:],
    ]
    strong = systems.index(used) if used in systems else None
    parts = [table(head, body, strong=strong, css="systems")]
    if charts.beyond(rows):
        parts.insert(0, paragraph(BEYOND, "quiet small"))
    return [charts.forest(rows, zero), *parts] if rows else parts


def system_cells(block: dict[str, Any]) -> list[str]:
    """A system's figures under SYSTEM_HEAD. A figure that it lacks is a dash."""

    def number(name: str, digits: int = 3) -> str:
        value = figure(block, name)
        return "–" if value is None else f"{value:,.{digits}f}"

    name = "average_precision"
    ends = f"\n[{number(f'{name}_low')}, {number(f'{name}_high')}]" if f"{name}_low" in block else ""
    shares = [share_of(figure(block, each)) for each in ("precision", "recall")]
    return [number(name) + ends, number("f1"), *shares, number("false_alarms_per_1000", 0), number("threshold")]


def share_of(value: float | None) -> str:
    return "–" if value is None else percent(value)


def difference(ahead: dict[str, float]) -> str:
    """A system minus the best cheap one, in average precision."""
    name = "average_precision"
    if name not in ahead:
        return "–"
    ends = f"\n[{signed(ahead[f'{name}_low'])}, {signed(ahead[f'{name}_high'])}]" if f"{name}_low" in ahead else ""
    return signed(ahead[name]) + ends


def folds(run: Run) -> str:
    """The systems on the whole pool; nothing where the data set has no folds."""
    block = run.folds
    if "best_cheap" not in block:
        return ""
    best = block["best_cheap"]["name"]
    note = say(
        "全部 {rows} 条文本，每条由训练时没见过它那一折的系统打分，所以区间更窄。"
        "0 是{cheap}。其中含测试集：只用于报告。",
        "All {rows} texts, each scored by systems trained without its fold, so intervals are narrower. "
        "0 is the {cheap}. They hold test: for reporting only.",
        rows=count(block["size"]["rows"]),
        cheap=label(best),
    )
    if "model" not in block:
        more = Words(
            "微调模型不在其中，运行 make folds 可以加入。", " The fine-tuned model is missing: make folds adds it."
        )
        note = Words(note.zh + more.zh, note.en + more.en)
    elif not block["collected"]["with_present_params"]:
        more = Words(
            "注意：模型的分数来自其他参数。",
            " Mind: the model's scores were made with other parameters than this run's.",
        )
        note = Words(note.zh + more.zh, note.en + more.en)
    parts = compared(block, best, run.used)
    return card(
        Words("整个数据池，折外打分", "The whole pool, out of fold"), paragraph(note, "quiet small"), *parts, css="wide"
    )


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
    note = say(
        "图：训练集、验证集、测试集{further}共 {rows} 条文本，最后一点含所有更长的文本。"
        "表：仅测试集的 {test} 条，括号内为条数和以百分数表示的 95\u00a0% 区间。",
        "Chart: all {rows} texts of train, valid, test{further}; its last point holds all longer texts. "
        "Table: the {test} texts of test alone, with how many they are and the 95\u00a0% interval in percent.",
        further=Words("和其他数据集", " and the further sets") if run.data.get("further") else Words("", ""),
        rows=count(sum(fraud + harmless for _, fraud, harmless in rows)),
        test=count(len(run.test)),
    )
    parts = (chart, charts.legend(keys), paragraph(note, "quiet small"), table(head, body, css="rates"))
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
    return f"{percent(each.share, 0)}\n({each.happened}/{each.rows}; {100 * each.low:.0f}–{100 * each.high:.0f})"


def further(run: Run) -> str:
    """The systems on each further set. A set of one class has one figure: what is flagged of it."""
    parts = []
    for name, block in sorted(run.evaluate.get("further", {}).items()):
        systems = [system for system in run.systems if system in block]
        rows = say("{rows} 条，{kind}", "{rows} texts, {kind}", rows=count(block["size"]["rows"]), kind=made_of(block))
        head, cells = columns(block[systems[0]])
        body: list[list[Cell]] = [[label(system), *cells(block[system])] for system in systems]
        title = f"<h3><bdi>{escape(plain(name))}</bdi> · {both(rows)}</h3>"
        strong = systems.index(run.used) if run.used in systems else None
        parts += [title, table(head, body, strong=strong, css="systems")]
    return card(Words("其他数据集", "Further sets"), *parts, css="wide") if parts else ""


def columns(block: dict[str, Any]) -> tuple[tuple[Cell, ...], Callable[[dict[str, Any]], list[str]]]:
    """The head of a further set's table, and what fills a system's row. block: the figures of one of its systems."""
    fraud, harmless = block["tp"] + block["fn"], block["fp"] + block["tn"]
    if fraud and harmless:
        return SYSTEM_HEAD, system_cells
    if fraud:
        title = Words("找出的诈骗 [95\u00a0% 区间]", "fraud found [95\u00a0% interval]")
        return (SYSTEM_HEAD[0], title), lambda each: [with_ends(each, "recall", percent)]
    title = Words("误报 / 1,000 [95\u00a0% 区间]", "false alarms / 1,000 [95\u00a0% interval]")
    return (SYSTEM_HEAD[0], title), lambda each: [with_ends(each, "false_alarms_per_1000", count)]


def with_ends(block: dict[str, Any], name: str, shown: Callable[[float], str]) -> str:
    """A figure with its interval.

    block: a system's figures. name: of the figure. shown: how it is written.
    """
    ends = [shown(block[end]) for end in (f"{name}_low", f"{name}_high") if end in block]
    return shown(block[name]) + (f" [{', '.join(ends)}]" if ends else "")


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
    packages = [f"{name} {version}" for name, version in sorted(versions.items()) if name != "device"]
    rows.append([Words("版本", "versions"), " · ".join(packages)])
    rows.append([Words("评估所用设备", "device of the evaluation"), str(versions.get("device", "–"))])
    head: list[Cell] = [Words("什么", "what"), Words("哪一个", "which")]
    flat = [[key, value] for key, value in flat_params(run)]
    return card(
        Words("来历", "Provenance"),
        table(head, rows, right=9, css="wrapped"),
        folded(
            Words("全部参数", "All parameters"),
            table([Words("参数", "parameter"), Words("值", "value")], flat, right=9),
            css="all",
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
        for part, entry in parts.items()
        for key, value in sorted((entry.section() if entry is chosen.select else dataclasses.asdict(entry)).items())
    ]
