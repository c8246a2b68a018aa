"""CSV tables with a header."""

import csv
import sys
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from stages.data.lines import DataError, read_lines
from stages.data.row import Row
from stages.data.values import LABELS, shorten


def read_csv_table(path: Path, required: Sequence[str], label: str) -> Iterator[Row]:
    """Yields the rows below the header. Rows without any value, as Excel writes below a table, are skipped.

    required: columns that the header must hold once. label: the one of them that holds the label.
    Raises DataError if the header lacks a column, comes again, or a quote never closes.
    """
    text = csv_lines(path)
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(text, strict=True)
    columns: list[str] = []
    end = 0
    try:
        for cells in reader:
            start, end = end, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = cells
                require_columns(path, columns, required)
                continue
            if {*required} <= {cell.strip().lower() for cell in cells}:
                raise DataError(
                    f"{path}:{end}: the header comes again, so files were joined here, and cases of one name would be "
                    "mixed: give each file by itself, in a folder"
                )
            yield from parse_csv_row(end, "".join(text[start:end]).strip("\n"), cells, columns, label, ",", LABELS)
    except csv.Error as error:
        raise DataError(
            f"{path}:{end + 1}: no CSV in the row that begins here: {error}; double the quotes of a text"
        ) from None


def csv_lines(path: Path) -> list[str]:
    """All lines of a CSV file with their ends, blank ones too. A file without \\n may end its lines in \\r."""
    numbered = dict(read_lines(path))
    if len(numbered) == 1 and 1 in numbered:
        numbered = dict(enumerate(numbered[1].split(b"\r"), 1))
    found = (numbered.get(number, b"") for number in range(1, max(numbered, default=0) + 1))
    return [line.decode("utf-8", errors="surrogateescape") + "\n" for line in found]


def require_columns(path: Path, columns: list[str], required: Sequence[str]) -> None:
    """Raises DataError if the header lacks a column, or holds one twice."""
    if any(columns.count(key) != 1 for key in required):
        if has_other_bytes("".join(columns)):
            raise DataError(
                f"{path} can't be read as UTF-8: its header has other bytes; expected the columns "
                f"{', '.join(required)}, in UTF-8 (of GBK: `iconv -f gbk -t utf-8 old > new` converts it)"
            )
        raise DataError(
            f"{path} begins with the columns {shorten(columns, 300)}; expected {', '.join(required)}, each once, in "
            "lower case, with commas between"
        )


def has_other_bytes(text: str) -> bool:
    """Whether a text that was decoded with surrogateescape holds bytes of another encoding."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def parse_csv_row(
    line: int,
    text: str,
    cells: list[str],
    columns: list[str],
    label: str,
    delimiter: str,
    words: Container[str],
) -> Iterator[Row]:
    """Yields a row with its values by column, or with the reason why it has none. Rows that a quote joins are several,
    so that each of them counts as set aside.

    Args:
        line: the line where the row ends, from 1.
        text: the row as it is written; bytes that are not UTF-8 as lone surrogates.
        cells: the values in it.
        columns: names in the header. One may be blank: the first (pandas' index), or any whose cells are all blank.
        label: the column that holds the label.
        delimiter: what stands between the values.
        words: labels in lower case.
    """
    encoded = text.encode("utf-8", errors="surrogateescape")
    raw = encoded.decode("utf-8", errors="backslashreplace")
    try:
        encoded.decode("utf-8")
    except UnicodeDecodeError as error:
        yield Row(line, raw, problem=f"no UTF-8 at byte {error.start}")
        return
    if spans_rows(text.split("\n"), delimiter, columns.index(label) - len(columns), len(columns), words):
        problem = "a quote that opens in one row closes in a later one: double the quotes of a text"
        lines = raw.split("\n")
        yield from (
            Row(line - len(lines) + number, each, problem=problem)
            for number, each in enumerate(lines, 1)
            if each.strip()
        )
        return
    named = max(number for number, name in enumerate(columns, 1) if name.strip())
    if len(cells) > len(columns) or any(cell.strip() for cell in cells[named:]):
        yield Row(line, raw, problem="more columns than the header names: quote a text that holds a comma")
    else:
        yield Row(line, raw, dict(zip(columns, cells, strict=False)), of_table=True)


def spans_rows(lines: list[str], delimiter: str, label: int, columns: int, words: Container[str]) -> bool:
    """Whether the lines of a CSV row are rows themselves: each has all columns, and one a label in its place.

    Or at least half of those between the first and the last have both, since other lines may be no rows.

    Args:
        lines: of the row.
        delimiter: what stands between the values.
        label: the place of the label, from the end: below 0.
        columns: their number.
        words: labels in lower case.
    """
    values = [line.split(delimiter) for line in lines if line.strip()]
    whole = [len(line) >= columns for line in values]
    labelled = [full and line[label].strip().lower() in words for full, line in zip(whole, values, strict=True)][:-1]
    between = labelled[1:]
    return any(labelled) and (all(whole) or (len(between) > 1 and 2 * sum(between) >= len(between)))
