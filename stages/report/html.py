"""HTML of the page's parts. All words pass through `both`, which escapes them."""

import itertools
from collections.abc import Iterable

from stages.report.words import Words, both

Cell = str | Words


def card(title: Words, *parts: str, css: str = "") -> str:
    """A part of the page under a heading.

    Args:
        title: the heading.
        parts: HTML.
        css: further classes.
    """
    return f'<section class="card {css}"><h2>{both(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def stack(*cards: str) -> str:
    """Cards below one another in one column."""
    return f'<div class="stack">{"".join(cards)}</div>'


def paragraph(words: Cell, css: str = "") -> str:
    return f'<p class="{css}">{both(words)}</p>' if css else f"<p>{both(words)}</p>"


def table(
    head: Iterable[Cell], rows: Iterable[Iterable[Cell]], right: int = 1, strong: int | None = None, css: str = ""
) -> str:
    """A table of plain text.

    Args:
        head: names of the columns.
        rows: their cells.
        right: from this column on, cells are numbers and stand on the right.
        strong: number of a row that is set off.
        css: classes.
    """

    def cells(row: Iterable[Cell], tag: str) -> str:
        marks = (' class="right"' if number >= right else "" for number in itertools.count())
        return "".join(f"<{tag}{mark}>{both(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=False))

    mark = ' class="strong"'
    body = "\n".join(
        f"<tr{mark if number == strong else ''}>{cells(row, 'td')}</tr>" for number, row in enumerate(rows)
    )
    return (
        f'<div class="scroll"><table class="{css}"><thead><tr>{cells(head, "th")}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def folded(title: Words, content: str, css: str) -> str:
    """Content that opens at a click. css: a class."""
    return f'<details class="{css}"><summary>{both(title)}</summary>{content}</details>'
