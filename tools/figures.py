"""Draws docs/img/*.svg from the committed figures, in English and in Chinese.

python -m tools.figures        (or: make figures)

Equal figures give equal bytes, and the numbers are plain text: tests/unit/pages/test_pictures.py compares both with
the JSON.
A picture brings its own background, so it stays legible where a page is dark and the picture doesn't know.
"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.sax.saxutils import escape

METRICS = Path("metrics")
RESULTS = Path("results")
IMAGES = Path("docs/img")
CURVE = METRICS / "curve.json"
CURVE_OF_CASES = RESULTS / "h200/curve_cases.json"

LANGUAGES = {"en": "", "zh": ".zh-CN"}  # language: what stands before the ending of the file's name
WIDTH = 520  # pixels: a phone shows it at two thirds, which leaves letters of 9 pixels
MARGIN = 16

STYLE = """
svg { --ink: #1f2328; --soft: #59636e; --rule: #d1d9e0; --page: #ffffff; --one: #0969da; --two: #bc4c00;
  --none: #6e7781 }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6edf3; --soft: #9198a1; --rule: #3d444d; --page: #0d1117; --one: #4493f8; --two: #f0883e;
    --none: #9198a1 }
}
text { font: 14px system-ui, -apple-system, "Segoe UI", "Noto Sans", "PingFang SC", "Microsoft YaHei",
  "Noto Sans CJK SC", sans-serif; fill: var(--ink); stroke: var(--page); stroke-width: 4px; paint-order: stroke }
.page { fill: var(--page); stroke: var(--rule) }
.title { font-weight: 600 }
.small { font-size: 13px; fill: var(--soft) }
.axis { stroke: var(--rule) }
.zero { stroke: var(--soft) }
.one { fill: var(--one); stroke: var(--one) }
.two { fill: var(--two); stroke: var(--two) }
.none { fill: var(--none); stroke: var(--none) }
.line { fill: none; stroke-width: 2 }
.line.axis, .line.zero { stroke-width: 1 }
.dashed { stroke-dasharray: 5 4 }
"""

# Each test set: its name in two languages, the evaluate.json of each seed, and where the difference is in it.
SAMPLE = (("The sample, default run, 556 texts", "样本数据，默认运行，556 条"), ["evaluate.json"], ())
CASES = "h200/anti_fraud_cases"
REAL = [
    (
        ("Cases from the news and meetings, names removed, 5,686", "新闻案例与会议记录，去掉发言人姓名，5,686 条"),
        [f"{CASES}/names_removed/seed-{seed}/evaluate.json" for seed in (1, 2, 3)],
        (),
    ),
    (
        ("The same with names, split anew, 5,757", "同上，保留姓名，重新切分，5,757 条"),
        [f"{CASES}/names_kept/seed-{seed}/evaluate.json" for seed in (1, 2, 3)],
        (),
    ),
    (
        ("Calls of another source, names removed, 10,006", "另一来源的通话，去掉姓名，10,006 条"),
        [f"{CASES}/names_removed/seed-{seed}/evaluate.json" for seed in (1, 2, 3)],
        ("further", "teleantifraud"),
    ),
    (
        ("The same calls with names", "同样的通话，保留姓名"),
        [f"{CASES}/names_kept/seed-{seed}/evaluate.json" for seed in (1, 2, 3)],
        ("further", "teleantifraud"),
    ),
    (
        ("Leaky split of the article, eval0819, 2,345", "文章中有泄漏的切分 eval0819，2,345 条"),
        [f"h200/anti_fraud_sft_minus/seed-{seed}/evaluate.json" for seed in (1, 2, 3)],
        (),
    ),
    (
        ("Leaky split of the article, test0819, 2,343", "文章中有泄漏的切分 test0819，2,343 条"),
        [f"h200/anti_fraud_sft_leaky/seed-{seed}/evaluate.json" for seed in (1, 2, 3)],
        (),
    ),
]

TRAINING = {
    "article": ("The article: stock Trainer, QLoRA", "文章的做法：原生 Trainer，QLoRA"),
    "trl_tuned": ("TRL SFTTrainer, QLoRA, tuned", "TRL SFTTrainer，QLoRA，已调优"),
    "unsloth": ("Unsloth, QLoRA", "Unsloth，QLoRA"),
    "memory": ("This project, profile memory", "本项目，profile: memory"),
    "speed": ("This project, profile speed", "本项目，profile: speed"),
}
LARGE_STEPS = {
    "trl_tuned_64": ("TRL SFTTrainer, QLoRA, tuned", "TRL SFTTrainer，QLoRA，已调优"),
    "unsloth_64": ("Unsloth, QLoRA", "Unsloth，QLoRA"),
    "speed_64": ("This project, profile speed", "本项目，profile: speed"),
}
SCORING = {
    "generate": ("The article: generation", "文章的做法：生成回答"),
    "score": ("This project: one forward pass", "本项目：一次前向计算"),
}

# Methods of the memory map: name in it, label, colour and line.
METHODS = {
    ("lora", ""): ("LoRA", "one"),
    ("qlora", ""): ("QLoRA", "two"),
    ("lora", "-checkpointed"): ("LoRA, checkpointing", "one dashed"),
    ("qlora", "-checkpointed"): ("QLoRA, checkpointing", "two dashed"),
}
# Systems of the learning curve: names, colour and line.
CURVES = {
    "model": (("model", "微调模型"), "one"),
    "combined": (("model + TF-IDF", "模型 + TF-IDF"), "one dashed"),
    "baseline": (("TF-IDF", "TF-IDF"), "two"),
    "combined_cheap": (("probe + TF-IDF", "探针 + TF-IDF"), "two dashed"),
    "probe": (("probe", "探针"), "none"),
}
COMPARED = ("model", "combined")
ENDS = ("", "_low", "_high")
NAMES_FROM = 366  # x of the names beside the curves, pixels
ROW = 18
BATCHES = (1, 4, 16, 32)
SHAPES = {"qwen2-1.5b": "1.5B", "qwen2-7b": "7B"}


class Drawing:
    """Shapes and words of one picture, WIDTH pixels wide; y grows downwards."""

    def __init__(self):
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, css: str = "", anchor: str = "start") -> None:
        """Writes words.

        Args:
            x, y: the anchor, pixels from the upper left corner.
            words: the text.
            css: classes of the style sheet.
            anchor: which end of the words lies at x: "start", "middle" or "end".
        """
        look = f' class="{css}"' if css else ""
        side = f' text-anchor="{anchor}"' if anchor != "start" else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}"{look}{side}>{escape(words)}</text>')

    def line(self, points: list[tuple[float, float]], css: str) -> None:
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{places}" class="line {css}"/>')

    def dot(self, x: float, y: float, css: str) -> None:
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{css}"/>')

    def bar(self, x: float, y: float, length: float, css: str) -> None:
        """Draws a horizontal bar.

        Args:
            x, y: the upper left corner, pixels.
            length: pixels.
            css: classes of the style sheet.
        """
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{length:.1f}" height="14" class="{css}"/>')

    def svg(self, height: float, title: str) -> str:
        size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
        page = f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="6" class="page"/>'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{escape(title)}</title>'
        return "\n".join([head, f"<style>{STYLE}</style>", page, *self.parts, "</svg>", ""])


def main() -> None:
    for name, picture in pictures().items():
        (IMAGES / name).write_text(picture, encoding="utf-8")


def pictures() -> dict[str, str]:
    """All pictures, by the name of the file."""
    drawers: dict[str, Callable[[int], str]] = {
        "difference": difference,
        "speed": speed,
        "memory": memory,
        "curve_cases": partial(curve, CURVE_OF_CASES),
    }
    if CURVE.is_file():  # `make curve` takes long, so not every project has it
        drawers["curve"] = partial(curve, CURVE)
    return {
        f"{name}{ending}.svg": draw(language)
        for name, draw in drawers.items()
        for language, ending in enumerate(LANGUAGES.values())
    }


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def axis(low: float, high: float, left: float, right: float) -> Callable[[float], float]:
    """Maps values to pixels.

    Args:
        low, high: values at the ends of the axis.
        left, right: their pixels.
    """
    return lambda value: left + (value - low) / (high - low) * (right - left)


def signed(value: float, digits: int) -> str:
    """A difference with its sign, and a real minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def differences(folder: Path, files: list[str], keys: tuple[str, ...]) -> list[tuple[float, float, float]]:
    """Model minus baseline in average precision, with its interval, for each file."""
    found = []
    for file in files:
        part = read(folder / file)
        for key in keys:
            part = part[key]
        found.append(tuple(part["difference"][f"average_precision{end}"] for end in ("", "_low", "_high")))
    return found


def difference(language: int) -> str:
    """Model minus baseline on each test set: a dot a seed, with its interval."""
    drawing = Drawing()
    title = (
        "Average precision: model minus tuned TF-IDF baseline",
        "平均精确率：模型减去调优后的 TF-IDF 基线",
    )[language]
    drawing.text(MARGIN, 28, title, "title")
    legend = (
        (("model better", "one"), ("neither shown", "none"), ("baseline better", "two")),
        (("模型更好", "one"), ("未分高下", "none"), ("基线更好", "two")),
    )[language]
    for number, (words, css) in enumerate(legend):
        drawing.dot(MARGIN + 5 + 130 * number, 47, css)
        drawing.text(MARGIN + 15 + 130 * number, 52, words, "small")
    y = set_rows(drawing, 70, [(SAMPLE[0][language], differences(METRICS, *SAMPLE[1:]))], (-0.1, 0.1, 0.05), 3)
    rows = [(names[language], differences(RESULTS, files, keys)) for names, files, keys in REAL]
    y = set_rows(drawing, y + 22, rows, (-0.1, 0.02, 0.02), 4)
    note = (
        "A dot is a training seed, the line its 95 % interval. The two scales differ.",
        "每个点是一个训练种子，横线是 95 % 区间。上下两部分的刻度不同。",
    )[language]
    drawing.text(MARGIN, y + 14, note, "small")
    return drawing.svg(y + 30, title)


def set_rows(drawing: Drawing, top: float, rows: list, scale: tuple[float, float, float], digits: int) -> float:
    """Draws test sets below one another on one axis.

    Args:
        drawing: receives the shapes.
        top: y of the first row, in pixels.
        rows: name of the set, and (difference, low, high) of each seed.
        scale: first tick, last tick and step of the axis, in average precision.
        digits: decimals of the printed differences.

    Returns:
        y below the axis.
    """
    first, last, step = scale
    place = axis(first - 0.1 * step, last + 0.1 * step, MARGIN, WIDTH - 90)
    bottom = top + sum(28 + 17 * len(seeds) for _, seeds in rows)
    ticks = [first + step * number for number in range(round((last - first) / step) + 1)]
    for tick in ticks:
        zero = math.isclose(tick, 0, abs_tol=1e-9)
        drawing.line([(place(tick), top), (place(tick), bottom)], "zero" if zero else "axis")
        drawing.text(place(tick), bottom + 16, "0" if zero else signed(tick, 2), "small", "middle")
    y = top
    for name, seeds in rows:
        drawing.text(MARGIN, y + 16, name)
        for number, (value, low, high) in enumerate(seeds):
            middle = y + 30 + 17 * number
            css = "one" if low > 0 else "two" if high < 0 else "none"
            drawing.line([(place(low), middle), (place(high), middle)], css)
            drawing.dot(place(value), middle, css)
            drawing.text(WIDTH - MARGIN, middle + 5, signed(value, digits), "small", "end")
        y += 28 + 17 * len(seeds)
    return bottom + 22


def speed(language: int) -> str:
    """Texts a second and memory of each recipe, training and scoring."""
    drawing, race = Drawing(), read(RESULTS / "race.json")
    title = (
        "1.5B model on one H100: rate and memory by recipe",
        "1.5B 模型，单张 H100：各种做法的速度与显存",
    )[language]
    drawing.text(MARGIN, 28, title, "title")
    headings = (
        ("training, 16 texts a step, texts/s", "training, 64 texts a step, texts/s", "scoring, texts/s"),
        ("训练，每步 16 条，条/秒", "训练，每步 64 条，条/秒", "判断，条/秒"),
    )[language]
    memory_heading = ("peak allocated, GB", "显存分配峰值，GB")[language]
    y = 52.0
    for heading, recipes in zip(headings, (TRAINING, LARGE_STEPS, SCORING), strict=True):
        drawing.text(MARGIN, y, heading, "small")
        drawing.text(WIDTH / 2 + 60, y, memory_heading, "small")
        y = recipe_rows(drawing, y + 8, {names[language]: race[key] for key, names in recipes.items()}) + 24
    note = (
        "Median of five windows, lowest and highest in brackets.",
        "五个时间窗的中位数，括号内为最低与最高。",
    )[language]
    drawing.text(MARGIN, y - 8, note, "small")
    return drawing.svg(y + 8, title)


def recipe_rows(drawing: Drawing, top: float, recipes: dict[str, dict]) -> float:
    """Draws a recipe a row: its rate on the left, its memory on the right. Returns y below the last row."""
    ours = ("This project", "本项目")
    rate = axis(0, max(found["samples_per_second"] for found in recipes.values()), 0, 165)
    memory_of = axis(0, max(found["peak_allocated_bytes"] for found in recipes.values()), 0, 130)
    for number, (name, found) in enumerate(recipes.items()):
        y, right = top + 46 * number, WIDTH / 2 + 60
        css = "one" if name.startswith(ours) else "none"
        drawing.text(MARGIN, y + 16, name)
        low, middle, high = (found[f"samples_per_second{end}"] for end in ("_min", "", "_max"))
        drawing.bar(MARGIN, y + 23, rate(middle), css)
        words = f"{short(middle)} [{short(low)}, {short(high)}]"
        drawing.text(MARGIN + rate(middle) + 6, y + 35, words, "small")
        peak = found["peak_allocated_bytes"]
        drawing.bar(right, y + 23, memory_of(peak), css)
        drawing.text(right + memory_of(peak) + 6, y + 35, f"{peak / 1e9:.1f}", "small")
    return top + 46 * len(recipes)


def short(rate: float) -> str:
    """Two digits at least: 9.0, 19.8, 581."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def memory(language: int) -> str:
    """Peak memory of a training step by batch, for two model sizes and four methods."""
    drawing, measured = Drawing(), read(RESULTS / "memory_map.json")
    title = ("Peak memory of a training step, GB", "一个训练步的显存峰值，GB")[language]
    drawing.text(MARGIN, 28, title, "title")
    y = 40.0
    for shape, name in SHAPES.items():
        peaks = {
            method: [measured[shape][f"{method[0]}-{batch}{method[1]}"]["peak"] / 1e9 for batch in BATCHES]
            for method in METHODS
        }
        y = memory_panel(drawing, y, name, peaks)
    note = (
        "Across: texts a step, 256 tokens each. Profile plain.",
        "横轴：每步的文本数，每条 256 个词元。profile: plain。",
    )[language]
    drawing.text(MARGIN, y + 4, note, "small")
    return drawing.svg(y + 18, title)


def memory_panel(drawing: Drawing, top: float, name: str, peaks: dict[tuple[str, str], list[float]]) -> float:
    """Draws one model size: a line a method.

    Args:
        drawing: what is drawn on.
        top: y of the panel's upper edge, pixels.
        name: the model's size, such as "1.5B".
        peaks: peak allocated in GB at each batch, by method and checkpointing.

    Returns y below the panel, pixels.
    """
    highest = max(max(values) for values in peaks.values())
    step = 5 if highest < 30 else 20
    across = axis(0, math.log2(BATCHES[-1]), 60, WIDTH - 200)
    up = axis(0, highest, top + 210, top + 30)
    drawing.text(MARGIN, top + 16, name)
    for tick in range(0, math.ceil(highest), step):
        drawing.line([(48, up(tick)), (WIDTH - 190, up(tick))], "axis")
        drawing.text(40, up(tick) + 5, str(tick), "small", "end")
    for batch in BATCHES:
        drawing.text(across(math.log2(batch)), top + 230, str(batch), "small", "middle")
    for method, values in peaks.items():
        label, css = METHODS[method]
        points = [(across(math.log2(batch)), up(value)) for batch, value in zip(BATCHES, values, strict=True)]
        drawing.line(points, css)
        for x, y in points:
            drawing.dot(x, y, css.split()[0])
        drawing.text(WIDTH - 190, points[-1][1] + 5, f"{values[-1]:.1f} {label}", "small")
    return top + 248


def curve(path: Path, language: int) -> str:
    """Average precision of each system by texts of train, and how far trained ones are ahead of the best cheap one."""
    found, drawing = read(path), Drawing()
    points = sorted(found["sizes"].values(), key=lambda point: point["train"]["rows"])
    title = ("Average precision by number of texts to learn from", "平均精确率与训练文本数的关系")[language]
    drawing.text(MARGIN, 28, title, "title")
    rows = [point["train"]["rows"] for point in points]
    across = axis(math.log2(rows[0]) - 0.4, math.log2(rows[-1]) + 0.6, 48, NAMES_FROM - 4)
    places = [across(math.log2(count)) for count in rows]
    values = {system: [point[system]["average_precision"] for point in points] for system in CURVES}
    y = curve_lines(drawing, places, values, language)
    heading = ("Minus the best cheap system, with 95 % interval", "减去最好的免训练系统，含 95 % 区间")[language]
    drawing.text(MARGIN, y + 26, heading, "small")
    ahead = {
        system: [tuple(point["ahead"][system].get(f"average_precision{end}") for end in ENDS) for point in points]
        for system in COMPARED
    }
    y = curve_differences(drawing, y + 40, places, ahead)
    lines = [(("texts of train", "训练文本数")[language], list(map(str, rows)))]
    lines += [
        (CURVES[system][0][language], [signed(ends[0], 3).replace("0.", ".") for ends in ahead[system]])
        for system in COMPARED
    ]
    for name, words in lines:
        y += ROW
        for place, word in zip(places, words, strict=True):
            drawing.text(place, y, word, "small", "middle")
        drawing.text(NAMES_FROM, y, name, "small")
    folds = found["folds"]
    where = (("on test", "测试集") if folds == 1 else (f"out of fold, {folds} folds", f"{folds} 折，折外"))[language]
    drawing.text(MARGIN, y + 28, (f"Average precision {where}.", f"平均精确率：{where}。")[language], "small")
    return drawing.svg(y + 42, title)


def curve_lines(drawing: Drawing, places: list[float], values: dict[str, list[float]], language: int) -> float:
    """Draws average precision, a line a system, with its last value and its name. Returns y below the panel.

    Args:
        drawing: receives the shapes.
        places: x of each size, pixels.
        values: average precision at each size, by system.
        language: of the names.
    """
    top, bottom = 50.0, 230.0
    every = [value for line in values.values() for value in line]
    up = ruled(drawing, min(every), max(every), bottom, top, lambda tick: f"{tick:.2f}")
    below = top - ROW
    for system, line in sorted(values.items(), key=lambda item: -item[1][-1]):
        names, css = CURVES[system]
        drawing.line([(x, up(value)) for x, value in zip(places, line, strict=True)], css)
        for x, value in zip(places, line, strict=True):
            drawing.dot(x, up(value), css.split()[0])
        below = max(up(line[-1]) + 5, below + ROW)  # names of close lines are moved apart
        drawing.line([(NAMES_FROM, below - 5), (NAMES_FROM + 11, below - 5)], css)
        drawing.text(NAMES_FROM + 14, below, f"{line[-1]:.3f} {names[language]}".removeprefix("0"), "small")
    return max(bottom, below)


def curve_differences(
    drawing: Drawing, top: float, places: list[float], ahead: dict[str, list[tuple[float | None, ...]]]
) -> float:
    """Draws differences, a dot with its interval for each system and size. Returns y below the panel.

    Args:
        drawing: receives the shapes.
        top: y of the panel, pixels.
        places: x of each size, pixels.
        ahead: difference, low and high at each size, by system; None with too few units for an interval.
    """
    bottom = top + 120
    every = [bound for line in ahead.values() for bounds in line for bound in bounds if bound is not None]
    up = ruled(drawing, min(0, *every), max(0, *every), bottom, top, lambda tick: signed(tick, 2))
    for number, (system, line) in enumerate(ahead.items()):
        css = CURVES[system][1]
        for place, (value, low, high) in zip(places, line, strict=True):
            x = place + 8 * number - 4
            if low is not None and high is not None:
                drawing.line([(x, up(low)), (x, up(high))], css)
            drawing.dot(x, up(value or 0.0), css.split()[0])
    return bottom


def ruled(
    drawing: Drawing, low: float, high: float, bottom: float, top: float, words: Callable[[float], str]
) -> Callable[[float], float]:
    """Draws at most six horizontal lines at round values. Returns what maps values to y.

    Args:
        drawing: receives the lines.
        low, high: the least and the greatest value.
        bottom, top: y of the panel's edges, pixels.
        words: what is written beside a line of a value.
    """
    step = next(size for size in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if high - low <= 4 * size)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    up = axis(first * step, max(last, first + 1) * step, bottom, top)
    for number in range(first, max(last, first + 1) + 1):
        y = up(number * step)
        drawing.line([(48, y), (NAMES_FROM - 4, y)], "zero" if number == 0 else "axis")
        drawing.text(44, y + 5, "0" if number == 0 else words(number * step), "small", "end")
    return up


if __name__ == "__main__":
    main()
