"""Charts as inline SVG. Colours come from the page's style sheet, so they follow light, dark and print."""

import math
from collections.abc import Callable, Sequence
from html import escape

from stages.report.rates import Point, Rate
from stages.report.words import Words, both, percent, plain, short, signed

WIDTH = 400  # units: on a phone 1 unit is 0.8 pixels, which leaves letters of 9 to 10 pixels
ROW = 24
MOST_NAME = 15
LINES = {  # classes of a system's line
    "zero_shot": "none thin",
    "baseline": "cheap thin dotted",
    "probe": "cheap thin dashed",
    "combined_cheap": "cheap",
    "model": "own",
    "combined": "own thin dashed",
}


class Drawing:
    """Shapes and words of one chart; y grows downwards."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str | Words, css: str = "", anchor: str = "start") -> None:
        """Writes words in one language or two.

        Args:
            x, y: the anchor.
            words: plain text.
            css: classes of the style sheet.
            anchor: which end of the words lies at x: "start", "middle" or "end".
        """
        versions = [("", words)] if isinstance(words, str) else [("zh", words.zh), ("en", words.en)]
        for language, text in versions:
            look = f"{css} {language}".strip()
            self.parts.append(
                f'<text x="{x:.1f}" y="{y:.1f}" class="{look}" text-anchor="{anchor}">{escape(plain(text))}</text>'
            )

    def line(self, places: Sequence[tuple[float, float]], css: str) -> None:
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        self.parts.append(f'<polyline points="{joined}" class="line {css}"/>')

    def dot(self, x: float, y: float, css: str, title: str = "") -> None:
        """Draws a dot.

        Args:
            x, y: its centre.
            css: classes of the style sheet.
            title: shown when the mouse is over it.
        """
        inside = f"<title>{escape(plain(title))}</title>" if title else ""
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="{css}">{inside}</circle>')

    def bar(self, x: float, y: float, size: tuple[float, float], css: str) -> None:
        """Draws a bar.

        Args:
            x, y: its upper left corner.
            size: its width and height.
            css: classes of the style sheet.
        """
        width, height = (max(0.0, each) for each in size)
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{css}"/>')

    def svg(self, height: float, label: Words) -> str:
        head = (
            f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label.en)} · {escape(label.zh)}">'
        )
        return "\n".join([head, *self.parts, "</svg>"])


def axis(low: float, high: float, left: float, right: float) -> Callable[[float], float]:
    """Maps values to places; what lies outside is put on the edge.

    Args:
        low, high: values at the ends of the axis.
        left, right: their places.
    """
    return lambda value: left + (min(max(value, low), high) - low) / (high - low) * (right - left)


def step_of(size: float) -> float:
    """A round step that divides an axis of this size into two to five parts.

    >>> step_of(0.2), step_of(90), step_of(7)
    (0.1, 20.0, 2.0)
    """
    power = 10.0 ** math.floor(math.log10(size / 2))
    return next(factor * power for factor in (10.0, 5.0, 2.0, 1.0) if size / (factor * power) >= 2) if size else 1.0


Difference = tuple[Words, float, float | None, float | None]  # name, difference, and the ends of its interval or None


def limit_of(rows: list[Difference]) -> float:
    """Where the axis of `forest` ends. One system far off would squeeze all others: it is drawn at the edge."""
    ends = [abs(end) for _, value, low, high in rows for end in (value, low or value, high or value)]
    return max(0.02, 1.1 * (sorted(ends)[-4] if len(ends) > 6 and sorted(ends)[-4] < max(ends) / 2 else max(ends)))


def beyond(rows: list[Difference]) -> bool:
    """Whether `forest` draws a system at the edge."""
    return bool(rows) and any(abs(value) > limit_of(rows) for _, value, _, _ in rows)


def forest(rows: list[Difference], zero: Words) -> str:
    """Differences with their intervals, a row each.

    Args:
        rows: the differences.
        zero: what the vertical line stands for.
    """
    drawing, left, right = Drawing(), 158.0, WIDTH - 56.0
    limit = limit_of(rows)
    place, step = axis(-limit, limit, left, right), step_of(2 * limit)
    bottom = 32 + ROW * len(rows)
    for number in range(-math.floor(limit / step), math.floor(limit / step) + 1):
        x = place(number * step)
        drawing.line([(x, 26), (x, bottom)], "axis" if number else "zero")
        ticks = signed(number * step, 2 if step >= 0.01 else 3) if number else "0"
        drawing.text(x, bottom + 16, ticks, "small", "middle")
    drawing.text(place(0), 16, zero, "small", "middle")
    for number, (name, value, low, high) in enumerate(rows):
        y = 32 + ROW * (number + 0.5)
        css = "good" if low is not None and low > 0 else "bad" if high is not None and high < 0 else "none"
        drawing.text(8, y + 4, name)
        if low is not None and high is not None:
            drawing.line([(place(low), y), (place(high), y)], css)
        if abs(value) > limit:
            edge, inward = place(value), 8 if value < 0 else -8
            drawing.line([(edge + inward, y - 5), (edge, y), (edge + inward, y + 5)], css)
        else:
            drawing.dot(place(value), y, css)
        drawing.text(WIDTH - 4, y + 4, signed(value), "number", "end")
    return drawing.svg(bottom + 26, Words("与最好的廉价系统的差", "difference to the best cheap system"))


def grid(drawing: Drawing, names: tuple[Words, Words]) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Draws a square grid from 0 to 1. Returns what maps x and y to places.

    Args:
        drawing: receives the lines.
        names: of the axes, across and up.
    """
    across, up = axis(0, 1, 44, WIDTH - 16), axis(0, 1, 290, 34)
    for number in range(6):
        value = number / 5
        drawing.line([(across(value), up(0)), (across(value), up(1))], "axis")
        drawing.line([(across(0), up(value)), (across(1), up(value))], "axis")
        drawing.text(across(value), up(0) + 16, f"{100 * value:.0f}", "small", "middle")
        drawing.text(38, up(value) + 4, f"{100 * value:.0f}", "small", "end")
    drawing.text(across(1), up(0) + 34, names[0], "small", "end")
    drawing.text(8, 18, names[1], "small")
    return across, up


def line_of(system: str, used: str) -> str:
    """The classes of a system's line."""
    return f"{LINES[system]} strong" if system == used else LINES[system]


def precision_recall(curves: dict[str, list[Point]], size: tuple[int, int], own: dict[str, Point], used: str) -> str:
    """Precision by recall of each system, with a dot at its threshold. page.js moves a mark along the curve in use.

    Args:
        curves: thresholds by system, from no alarm to everything.
        size: how many fraud and harmless texts there are.
        own: the point of each system's threshold.
        used: the system in use, whose curve is drawn last.
    """
    drawing = Drawing()
    across, up = grid(drawing, (Words("召回率，%", "recall, %"), Words("精确率，%", "precision, %")))
    for system, curve in sorted(curves.items(), key=lambda each: each[0] == used):
        css = line_of(system, used)
        places = [
            (across(point.tp / size[0]), up(point.tp / (point.tp + point.fp))) for point in curve if point.tp + point.fp
        ]
        drawing.line(places, css)
        if (chosen := own[system]).tp + chosen.fp:
            at = across(chosen.tp / size[0]), up(chosen.tp / (chosen.tp + chosen.fp))
            drawing.dot(*at, css, f"{system}: {chosen.threshold:.3f}")
    start = across(0), up(0)
    drawing.parts.append(
        f'<circle id="mark" r="8" class="mark" cx="-20" cy="-20" data-x="{start[0]:.1f} {across(1):.1f}" '
        f'data-y="{start[1]:.1f} {up(1):.1f}"/>'
    )
    return drawing.svg(332, Words("各系统的精确率与召回率", "precision and recall of each system"))


def reliability(bins: dict[str, list[tuple[float, float]]]) -> str:
    """Share of fraud by probability, after calibration and before. bins: points by "model" and "model_before"."""
    drawing = Drawing()
    names = Words("模型给出的概率，%", "probability by the model, %"), Words("其中诈骗的比例，%", "share of fraud, %")
    across, up = grid(drawing, names)
    drawing.line([(across(0), up(0)), (across(1), up(1))], "zero dashed")
    for name, css in (("model_before", "none thin"), ("model", "own strong")):
        drawing.line([(across(x), up(y)) for x, y in bins[name]], css)
        for x, y in bins[name]:
            drawing.dot(across(x), up(y), css, f"{x:.3f}: {y:.3f}")
    return drawing.svg(332, Words("可靠性", "reliability"))


def rates(rows: list[Rate], css: str, label: Words) -> str:
    """A bar a row, with the interval of its share.

    Args:
        rows: the shares.
        css: class of the bars.
        label: what the chart shows.
    """
    drawing, place = Drawing(), axis(0, 1, 128, WIDTH - 92)
    bottom = 10 + ROW * len(rows)
    for number in range(5):
        x = place(number / 4)
        drawing.line([(x, 6), (x, bottom)], "axis")
        drawing.text(x, bottom + 16, percent(number / 4, 0), "small", "middle")
    for number, row in enumerate(rows):
        y = 10 + ROW * number
        drawing.text(8, y + 15, short(row.name, MOST_NAME))
        drawing.bar(place(0), y + 4, (place(row.share) - place(0), 14), css)
        drawing.line([(place(row.low), y + 11), (place(row.high), y + 11)], "whisker")
        drawing.text(WIDTH - 8, y + 15, f"{percent(row.share, 0)} ({row.happened}/{row.rows})", "number small", "end")
    return drawing.svg(bottom + 24, label)


def lengths(rows: list[tuple[float, int, int]]) -> str:
    """How many texts have which length, as two step lines. rows: characters, fraud texts, harmless texts."""
    drawing = Drawing()
    most, longest = max((max(fraud, harmless) for _, fraud, harmless in rows), default=0) or 1, rows[-1][0] or 1
    across, up = axis(0, longest, 44, WIDTH - 16), axis(0, most, 200, 30)
    for low, high, place, upright in ((0, longest, across, True), (0, most, up, False)):
        step = step_of(high - low)
        for number in range(math.floor(high / step) + 1):
            at, words = place(number * step), f"{number * step:g}"
            drawing.line([(at, up(0)), (at, up(most))] if upright else [(across(0), at), (across(longest), at)], "axis")
            if upright:
                drawing.text(at, up(0) + 16, words, "small", "middle")
            else:
                drawing.text(38, at + 4, words, "small", "end")
    for column, css in ((1, "fraud strong"), (2, "harmless strong")):
        drawing.line([(across(row[0]), up(row[column])) for row in rows], css)
    drawing.text(across(longest), up(0) + 34, Words("字符数", "characters"), "small", "end")
    drawing.text(8, 16, Words("文本数", "texts"), "small")
    return drawing.svg(240, Words("文本长度", "lengths of the texts"))


def legend(entries: Sequence[tuple[str, str | Words]]) -> str:
    """HTML that says which line is what. entries: classes and name."""
    items = "".join(f'<li><i class="{css}"></i>{both(words)}</li>' for css, words in entries)
    return f'<ul class="legend keys">{items}</ul>'
