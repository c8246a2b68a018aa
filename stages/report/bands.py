"""What block, review and pass promise and keep, where select.bands is set."""

from typing import Any

from stages.report.html import Cell, card, paragraph, table
from stages.report.read import Run
from stages.report.words import Words, percent, plain, say

ROWS = (
    ("reviews_per_1000", "high", Words("复核 / 1,000 条", "reviewed / 1,000 texts")),
    ("blocked_per_1000", "", Words("拦截 / 1,000 条", "blocked / 1,000 texts")),
    ("passed_per_1000", "", Words("放行 / 1,000 条", "passed / 1,000 texts")),
    ("precision", "low", Words("拦截属实", "blocked that is fraud")),
    ("missed", "high", Words("被放行的诈骗", "fraud that passes")),
    ("cost_per_1000", "high", Words("代价 / 1,000 条", "cost / 1,000 texts")),
)


def bands(run: Run) -> str:
    """A sentence and a table; nothing without bands."""
    edges = run.select.get("bands")
    if not edges:
        return ""
    promised = edges["promised"]
    kept = {name: block["bands"] for name, block in run.evaluate.get("kept", {}).items() if "bands" in block}
    words = say(
        "概率从 {review} 起由人复核，从 {block} 起拦截，其余放行。验证集承诺：每 1,000 条复核 {reviews} 条"
        "（至多 {most}），{missed} 的诈骗被放行（至多 {missed_most}）。",
        "From a probability of {review} on a text is reviewed, from {block} on it is blocked. The others pass. "
        "Valid promises {reviews} reviews per 1,000 texts (at most {most}), and that {missed} of the fraud passes "
        "(at most {missed_most}).",
        review=f"{edges['review']:.3f}",
        block=f"{edges['block']:.3f}" if edges["block"] <= 1 else "> 1",
        reviews=f"{promised['reviews_per_1000']:.1f}",
        most=f"{promised['reviews_per_1000_high']:.1f}",
        missed=percent(promised["missed"]),
        missed_most=percent(promised["missed_high"]),
    )
    note = Words(
        "方括号内是 95 % 的单侧界限。只有一类文本的数据集，诈骗占比与承诺的不同。",
        "Brackets hold one-sided 95 % bounds. A set of one class has another share of fraud than was promised.",
    )
    head: list[Cell] = [
        Words("什么", "what"),
        Words("验证集承诺", "promised by valid"),
        *(Words("测试集", "test") if name == "test" else plain(name) for name in kept),
    ]
    sets = [promised, *kept.values()]
    body: list[list[Cell]] = [
        [Words("诈骗占比", "share of fraud"), *(percent(each["fraud_fraction"], 0) for each in sets)]
    ]
    body += [
        [words_of, *(shown(each, name, side) for each in sets)]
        for name, side, words_of in ROWS
        if any(name in each for each in sets)
    ]
    return card(
        Words("拦截、复核、放行", "Block, review, pass"),
        paragraph(words),
        table(head, body),
        paragraph(note, "quiet small"),
        css="wide",
    )


def shown(figures: dict[str, Any], name: str, side: str) -> str:
    """A figure with its bound, a dash where nothing defines it.

    Args:
        figures: of a set.
        name: of the figure.
        side: of the bound, "low" or "high"; empty without one.
    """
    if name not in figures:
        return "–"

    def number(value: float) -> str:
        return f"{value:,.1f}" if name.endswith("_per_1000") else percent(value)

    bound = figures.get(f"{name}_{side}")
    sign = "≥" if side == "low" else "≤"
    return number(figures[name]) + ("" if bound is None else f" [{sign} {number(bound)}]")
