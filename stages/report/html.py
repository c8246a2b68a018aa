"""HTML of a page that is one file, and of its parts. All words pass through `both`, which escapes them."""

import base64
import hashlib
import itertools
from collections.abc import Iterable
from pathlib import Path

from stages.report.words import Words, both

Cell = str | Words
SHARED = Path(__file__).parents[1] / "serve" / "page"  # what these pages and the one of serve have in common


def document(title: Words, body: str, own: Path, css: str = "", data: str = "") -> str:
    """The whole file: style, script and data are inside, and its content policy forbids anything else.

    Args:
        title: its name and heading.
        body: HTML of its parts.
        own: the folder with its page.css and page.js.
        css: class of the main part.
        data: JSON for the script, made safe to stand in HTML.
    """
    style = "".join(path.read_text(encoding="utf-8") for path in (SHARED / "base.css", own / "page.css"))
    script = "\n" + "".join(path.read_text(encoding="utf-8") for path in (SHARED / "language.js", own / "page.js"))
    trusted = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{trusted}'; base-uri 'none'"
    languages = "".join(
        f'<button type="button" lang="{lang}" data-language="{key}">{name}</button>'
        for key, lang, name in (("zh", "zh-CN", "中文"), ("en", "en", "English"))
    )
    marked = f' class="{css}"' if css else ""
    embedded = f'<script type="application/json" id="data">{data}</script>\n' if data else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title.en} · {title.zh}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{both(title)}</h1>
<div class="languages" role="group" aria-label="Language / 语言">{languages}</div></header>
<main{marked}>
{body}
</main>
{embedded}<script>{script}</script>
</body>
</html>
"""


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
