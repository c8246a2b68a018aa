"""What a threshold finds and costs: the curve, the slider and the table of best thresholds."""

from html import escape

from stages.report import charts
from stages.report.html import Cell, card, paragraph, table
from stages.report.rates import FEW_ALARMS, Point, cheapest, costs, is_few, most_false, points, up_to
from stages.report.read import Run
from stages.report.words import Words, both, count, label, percent, say

FEW = say(
    "误报少于 {few} 条时，几条甚至 0 条误报说明不了误报率。“至多”和“至少”是其单侧 95\u00a0% 界限。",
    "Fewer than {few} false alarms in test, or none, say little about their rate. “Up to” and “at least” are then its "
    "one-sided 95\u00a0% bounds.",
    few=str(FEW_ALARMS),
)
UP_TO, AT_LEAST = Words("至多", "up to"), Words("至少", "at least")
COST_PAIRS = ((1, 1), (5, 1), (10, 1), (1, 5), (1, 10))  # of a false alarm and of a miss


def all_points(run: Run) -> dict[str, list[Point]]:
    """The thresholds of each system that has some; none where test has a single class."""
    if run.labels.all() or not run.labels.any():
        return {}
    found = {system: points(run, system) for system in run.systems}
    return {system: curve for system, curve in found.items() if curve}


def own_point(run: Run, system: str, curve: list[Point]) -> int:
    """The index of the system's own threshold."""
    return next(n for n, point in enumerate(curve) if point.threshold == run.evaluate[system]["threshold"])


def curves(run: Run) -> str:
    """Precision by recall of each system; nothing where the system in use has no threshold."""
    found = all_points(run)
    if run.used not in found:
        return ""
    own = {system: curve[own_point(run, system, curve)] for system, curve in found.items()}
    size = int(run.labels.sum()), int((~run.labels).sum())
    keys = [(charts.line_of(name, run.used), label(name)) for name in found]
    note = Words(
        "圆点是各系统自己的阈值，圆圈是“阈值的代价”中的阈值。",
        "The dots are the systems’ own thresholds, the ring is the threshold under “What a threshold costs”.",
    )
    return card(
        Words("精确率与召回率", "Precision and recall"),
        charts.precision_recall(found, size, own, run.used),
        charts.legend(keys),
        paragraph(note, "quiet small"),
    )


def costs_of_thresholds(run: Run) -> list[str]:
    """A card with a slider over the thresholds, and one with the best of them; none where there are no thresholds."""
    found = all_points(run)
    if run.used not in found:
        return []
    return [
        card(Words("阈值的代价", "What a threshold costs"), slider(run, found), paragraph(FEW, "quiet small")),
        card(
            say(
                "不同代价下{system}的最佳阈值，诈骗占 {share}",
                "The best threshold of the {system} for other costs, at {share} fraud",
                system=label(run.used),
                share=percent(run.evaluate["size"]["fraud_fraction"]),
            ),
            cost_table(run, found),
        ),
    ]


def slider(run: Run, curves: dict[str, list[Point]]) -> str:
    """The controls, filled in for the system in use at its threshold; page.js keeps them up to date."""
    choices = "".join(
        f'<option value="{name}"{" selected" if name == run.used else ""} data-zh="{escape(label(name).zh)}" '
        f'data-en="{escape(label(name).en)}"></option>'
        for name in curves
    )
    every, share = curves[run.used], run.evaluate["size"]["fraud_fraction"]
    at, last = own_point(run, run.used, every), len(every) - 1
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
    shown = "> 1" if every[at].threshold > 1 else f"{every[at].threshold:.3f}"
    return (
        f'<div class="fields"><label><span>{both(Words("系统", "System"))}</span>'
        f'<select id="system">{choices}</select></label>{inputs}</div>\n'
        f'<div class="slider"><label for="threshold">{both(Words("阈值", "Threshold"))}</label>'
        f'<input id="threshold" type="range" min="0" max="{last}" step="1" value="{last - at}">'
        f'<output id="threshold-value">{shown}</output></div>\n<div class="row buttons">'
        f'<button type="button" id="own">{both(Words("系统自己的阈值", "The system’s own"))}</button>'
        f'<button type="button" id="cheapest">{both(Words("代价最低", "Lowest cost"))}</button></div>\n'
        + results(run, every[at])
    )


def results(run: Run, point: Point) -> str:
    """What a threshold of the system in use finds and costs; page.js keeps it up to date."""
    now = costs(run, point, run.evaluate["size"]["fraud_fraction"], 1, 1, bound=True)
    right = percent(now.right) if point.tp + point.fp else "–"
    outs: tuple[tuple[str, Words, Words | None, str], ...] = (
        ("alarms", Words("每 1,000 条文本的告警", "Alarms per 1,000 texts"), UP_TO, f"{now.alarms:.1f}"),
        ("false-alarms", Words("其中误报", "of them false"), UP_TO, f"{now.false_alarms:.1f}"),
        ("misses", Words("漏报", "Misses"), None, f"{now.misses:.1f}"),
        ("cost", Words("代价", "Cost"), UP_TO, f"{now.cost:.1f}"),
        ("right", Words("告警属实", "Alarms that are right"), AT_LEAST, right),
        ("found", Words("找出的诈骗", "Fraud found"), None, percent(run.evaluate[run.used]["recall"])),
    )
    hidden = "" if is_few(point) else " hidden"
    items = "".join(
        f"<div><dt>{both(words)}</dt><dd>"
        + (f'<span class="bound"{hidden}>{both(bound)} </span>' if bound else "")
        + f'<span id="{name}">{value}</span></dd></div>'
        for name, words, bound, value in outs
    )
    return f'<dl class="results" aria-live="polite">{items}</dl>'


def cost_table(run: Run, curves: dict[str, list[Point]]) -> str:
    """The best threshold for some costs, so that a print shows it too."""
    fraud, share = int(run.labels.sum()), run.evaluate["size"]["fraud_fraction"]
    rows: list[list[Cell]] = []
    for false_alarm, miss in COST_PAIRS:
        best = cheapest(run, curves[run.used], share, false_alarm, miss)
        cost = costs(run, best, share, false_alarm, miss, bound=True).cost
        at = "> 1" if best.threshold > 1 else f"{best.threshold:.3f}"
        bounds = (up_to(best, count(each)) for each in (1000 * most_false(run, best), cost))
        rows.append([f"{false_alarm} : {miss}", at, percent(best.tp / fraud), *bounds])
    head = [
        Words("误报 : 漏报", "false alarm : miss"),
        Words("最佳阈值", "best threshold"),
        Words("找出", "found"),
        Words("误报 / 1,000 正常", "flagged / 1,000 harmless"),
        Words("代价 / 1,000", "cost / 1,000"),
    ]
    note = Words(
        "最佳阈值选自测试集，略偏乐观。要改用它，请设置 select.threshold: min_cost 和 select.cost。",
        "The best thresholds are chosen on test, which flatters them slightly. To use one, set "
        "select.threshold: min_cost and select.cost.",
    )
    return table(head, rows) + paragraph(note, "quiet small")
