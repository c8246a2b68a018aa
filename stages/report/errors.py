"""The texts that the model was surest of and got wrong, each with the sentence that moved it most where it is known."""

from dataclasses import dataclass
from html import escape

from stages.paths import PREDICTIONS
from stages.report.html import Cell, card, folded, paragraph
from stages.report.read import Run
from stages.report.words import Words, both, count, percent, plain, say, signed

FILE = (PREDICTIONS / "errors.csv").as_posix()
COUNTED = {"false alarm": "fp", "miss": "fn"}
OPEN = 6  # of a kind; the others are folded


@dataclass(frozen=True)
class Mark:
    """The piece of a text that moved the model most towards its error.

    start, end: its place in the text, in characters. effect: what it adds to the log-odds of fraud.
    """

    start: int
    end: int
    effect: float


Marks = dict[str, Mark]  # by source, of some texts
KINDS = {"false alarm": Words("误报（正常文本）", "False alarms"), "miss": Words("漏报（诈骗文本）", "Misses")}


def rows_of(run: Run, kind: str) -> list[dict[str, str]]:
    """The listed errors of a kind on test, the surest first."""
    return [row for row in run.errors if row["set"] == "test" and row["error"] == kind]


def errors(run: Run, marks: Marks) -> str:
    """The surest mistakes of the model, to be read."""
    parts = []
    for kind, title in KINDS.items():
        items = [item(row, marks.get(row["source"])) for row in rows_of(run, kind)]
        if items:
            heading = listed(title, len(items), run.evaluate["model"][COUNTED[kind]])
            parts += [f"<h3>{both(heading)}</h3>", f'<ol class="errors">{"".join(items[:OPEN])}</ol>']
        if rest := items[OPEN:]:
            more = say("其余 {rest} 条", "{rest} more", rest=count(len(rest)))
            printed = say("另有 {rest} 条，见 {file}", "and {rest} more in {file}", rest=count(len(rest)), file=FILE)
            parts.append(folded(more, f'<ol class="errors" start="{OPEN + 1}">{"".join(rest)}</ol>', css="rest"))
            parts.append(paragraph(printed, "quiet small printed"))
    if not parts:
        parts = [paragraph(Words("没有错误。", "There are none."))]
    note = Words(
        "微调模型最有把握却判错的测试文本。", "The texts of test that the fine-tuned model was surest of and got wrong."
    )
    if marks:
        moved = Words(
            "标出的句子最把模型推向错误；数字是它给诈骗的对数几率带来的变化。",
            " The marked sentence pushed the model most towards its error, by these log-odds of fraud.",
        )
        note = Words(note.zh + moved.zh, note.en + moved.en)
    return card(Words("值得一读的错误", "Errors to read"), paragraph(note, "quiet small"), *parts, css="wide")


def listed(title: Words, rows: int, of: int) -> Words:
    """The heading of a list of errors. rows: how many it holds. of: how many there are."""
    if rows >= of:
        return say("{title}：全部 {rows} 条", "{title}: all {rows}", title=title, rows=count(rows))
    words = "{title}：{all} 条中最有把握的 {rows} 条", "{title}: the {rows} surest of {all}"
    return say(*words, title=title, rows=count(rows), all=count(of))


def item(row: dict[str, str], mark: Mark | None) -> str:
    """An error in the list. mark: the piece of its text that is marked."""
    about: list[Cell] = []
    for name, key in ((Words("模型", "model"), "probability"), (Words("TF-IDF", "TF-IDF"), "baseline_probability")):
        if row[key]:
            about.append(say("{name} {p}", "{name} {p}", name=name, p=percent(float(row[key]))))
    about += [row["category"], row["source"]]
    if row["leak"]:
        about.append(say("泄漏：{kind}", "leaks: {kind}", kind=row["leak"]))
    if mark:
        about.append(say("标出处 {effect}", "marked {effect}", effect=signed(mark.effect, 1)))
    head = " · ".join(f"<bdi>{both(each)}</bdi>" for each in about if each)
    return f'<li><p class="quiet small">{head}</p><p class="sample" dir="auto">{marked(row["input"], mark)}</p></li>'


def marked(text: str, mark: Mark | None) -> str:
    """HTML of a text.

    >>> marked("a<b c", Mark(2, 3, 0.5))
    'a&lt;<mark>b</mark> c'
    """
    if mark is None:
        return escape(plain(text))
    before, piece, after = (
        escape(plain(part)) for part in (text[: mark.start], text[mark.start : mark.end], text[mark.end :])
    )
    return f"{before}<mark>{piece}</mark>{after}"
