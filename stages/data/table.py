"""Tables as programs export them: commas, tabs, semicolons or bars, with or without a header."""

import contextlib
import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages.data.csv_table import has_other_bytes, parse_csv_row
from stages.data.layout import Layout, fold_word
from stages.data.lines import DataError, check_command
from stages.data.row import Row
from stages.data.values import LABELS, shorten

DELIMITERS = ",\t;|"
LOOKED_AT = 100  # lines, to choose a delimiter


def read_table(path: Path, numbered: list[tuple[int, str]], layout: Layout) -> Iterator[Row]:
    """Yields the rows of a table. Rows without any value are skipped.

    numbered: number and text of each line. Raises DataError if the header lacks a column, or a quote never closes.
    """
    lines = table_lines(numbered)
    delimiter, columns = find_header(path, lines, layout)
    reader = read_cells(lines, delimiter, layout)
    words = layout.labels or LABELS
    waiting, end = not layout.without_header, 0
    try:
        for cells in reader:
            start, end = end, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if waiting:
                waiting = False
                continue
            text = "".join(lines[start:end]).strip("\n")
            for row in parse_csv_row(end, text, cells, columns, layout.name("label"), delimiter, words):
                if row.problem.startswith("no UTF-8"):
                    row = Row(row.line, row.raw, problem=row.problem.replace("UTF-8", layout.codec))
                yield row
    except csv.Error as error:
        raise open_quote(path, end + 1, error) from None


def open_quote(path: Path, line: int, error: csv.Error) -> DataError:
    """The error of a row whose quotes make no sense."""
    return DataError(
        f"{path}:{line}: no table in the row that begins here: {error}; double the quotes of a text, or set "
        "`quotes: false` in its entry if quotes mean nothing in this file"
    )


def table_lines(numbered: list[tuple[int, str]]) -> list[str]:
    """The lines, each ended by \\n. A file without \\n may end its lines in \\r."""
    texts = [text.rstrip("\r\n") for _, text in numbered]
    filled = [text for text in texts if text]
    if len(filled) == 1:
        texts = filled[0].split("\r")
    return [text + "\n" for text in texts]


def read_cells(lines: Iterable[str], delimiter: str, layout: Layout) -> Any:
    """A reader of the cells of each row. Its `line_num` is how many lines it has read."""
    csv.field_size_limit(sys.maxsize)
    if layout.quotes:
        return csv.reader(lines, delimiter=delimiter, strict=True)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)


def find_header(path: Path, lines: list[str], layout: Layout) -> tuple[str, list[str]]:
    """The delimiter by which the first row holds the columns of the layout, and the names of all columns.

    Raises DataError if there is none, or a column is there twice.
    """
    first = next((line for line in lines if line.strip()), "")
    start = lines[lines.index(first) :] if first else []
    found = {delimiter: header_cells(start, delimiter, layout) for delimiter in DELIMITERS}
    fitting = [delimiter for delimiter, columns in found.items() if layout.found_in(columns)]
    if len(fitting) > 1 and layout.without_header:  # numbers fit by any delimiter that a text holds
        fitting.sort(key=lambda delimiter: label_values(start[:LOOKED_AT], delimiter, layout))
    if fitting:
        return fitting[0], found[fitting[0]]
    if has_other_bytes(first):
        raise DataError(
            f"{path} can't be read as {layout.codec}: its first row has other bytes; expected the right `encoding` in "
            f"its entry of datasets ({check_command(path)} guesses it)"
        )
    widest = max(found.values(), key=len)
    raise DataError(
        f"{path} begins with the columns {shorten(widest, 300)}; expected {', '.join(layout.required)}, each once: "
        f"name its columns in the entry ({check_command(path)} prints one)"
    )


def label_values(lines: list[str], delimiter: str, layout: Layout) -> tuple[int, int]:
    """How many values the column of labels has by a delimiter, and their length: both small if it is the right one.

    Each row without a value counts as one more.
    """
    place = int(layout.name("label")) - 1
    values: list[str | None] = []
    with contextlib.suppress(csv.Error):  # a row may be cut, or broken
        for cells in read_cells(lines, delimiter, layout):
            values.append(fold_word(cells[place]) if place < len(cells) else None)
    return len(set(values)) + values.count(None), sum(map(len, filter(None, values)))


def header_cells(lines: list[str], delimiter: str, layout: Layout) -> list[str]:
    """The names in the first row, or the numbers of its columns if the table has no header."""
    try:
        cells: list[str] = next((row for row in read_cells(lines, delimiter, layout) if any(map(str.strip, row))), [])
    except csv.Error:
        return []
    if layout.without_header:
        return [str(number) for number in range(1, len(cells) + 1)]
    return [cell.strip() for cell in cells]
