"""What is to be classified. Rows of every format become lines of JSON, so that all that follows treats them alike."""

import csv
import functools
import json
import math
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stages.data.lines import DataError, input_name, missing_file_advice, read_lines, read_raw_lines
from stages.data.values import shorten
from stages.model.scoring import WINDOW
from stages.predict.formats import DELIMITERS, Format, format_of, is_packed, pyarrow

TEXT_OPTION = Path("--text")  # names the texts of the command line in messages
ARRAY = re.compile(rb"\s*\[\s*(\{|$)")  # of objects
BEGUN = re.compile(rb"\s*(\{|\[\s*\")")  # an object, or an array of texts


@dataclass(frozen=True)
class Source:
    """Rows to classify.

    Attributes:
        path: a file, a pipe, or - for standard input.
        column: the key or column of the text.
        texts: texts of the command line, which are read instead of a file.
        text_only: whether a Parquet file's other columns are left out, since the output takes them from the file.
    """

    path: Path
    column: str = "input"
    texts: tuple[str, ...] = ()
    text_only: bool = False

    @property
    def name(self) -> str:
        """The name in messages."""
        return input_name(self.path)

    @property
    def format(self) -> Format:
        return format_of(self.path)

    @property
    def is_table(self) -> bool:
        """Whether the rows have cells, in which a program may have written a word for a missing value."""
        return self.format != Format.JSONL


def records(source: Source) -> Iterator[tuple[int, bytes]]:
    """Yields each row as a line of JSON, with its number: of its first line, or of the row in a Parquet file.

    Lines of JSON Lines come as they are written. Raises DataError for a file that can't be read.
    """
    if source.texts:
        for number, text in enumerate(source.texts, 1):
            # What is no UTF-8 in the command line comes as surrogates, which the next reader refuses.
            yield number, json.dumps({source.column: text}, ensure_ascii=False).encode(errors="surrogateescape")
    elif source.format in DELIMITERS:
        yield from csv_records(source)
    elif source.format == Format.PARQUET:
        yield from parquet_records(source)
    else:
        yield from json_lines(source)


def json_lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of JSON Lines. Raises DataError for a JSON array, and for plain text, by the first line."""
    lines = read_lines(source.path)
    for number, line in islice(lines, 1):
        if ARRAY.match(line):
            advice = pass_through(source, "jq -c '.[]'")
            raise DataError(f"{source.name} is a JSON array; expected JSON Lines: {advice}")
        if is_plain_text(line):
            wrap = shlex.quote(f"{{{json.dumps(source.column, ensure_ascii=False)}: .}}")
            advice = pass_through(source, "grep '[^[:space:]]'", f" | jq -R -c {wrap}")
            raise DataError(
                f"{source.name} is plain text; expected JSON Lines: if each line is a text, {advice}. The name of a "
                "table has to end in .csv or .tsv"
            )
        yield number, line
    yield from lines


def is_plain_text(line: bytes) -> bool:
    """Whether a line in UTF-8 is no JSON, and doesn't look as if it should be."""
    if BEGUN.match(line):
        return False
    try:
        json.loads(line.decode())
    except UnicodeDecodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return False


def pass_through(source: Source, command: str, then: str = "") -> str:
    """The advice to pass the source through a command, and through what follows it."""
    if not source.path.is_file():
        return f"pass it through `{command}{then}`"
    name, new = shlex.quote(str(source.path)), shlex.quote(f"{source.path}.jsonl")
    read = f"zcat {name} | {command}" if is_packed(source.path) else f"{command} {name}"
    return f"run `{read}{then} > {new}` and classify {new}"


def csv_records(source: Source) -> Iterator[tuple[int, bytes]]:
    """Yields the rows below the header of a CSV or TSV file. All values are texts. Rows without any are skipped."""
    csv.field_size_limit(sys.maxsize)
    lines: list[str] = []  # of the row at hand
    reader = csv.reader(noted(decoded(source), lines), delimiter=DELIMITERS[source.format], strict=True)
    columns: list[str] = []
    joined: list[int] = []  # first lines of rows that may be several
    end = 0
    try:
        for cells in reader:
            start, end = end + 1, reader.line_num
            if len(lines) > 1 and may_be_rows(lines, DELIMITERS[source.format], len(columns or cells)):
                joined.append(start)
                if source.format == Format.TSV and len(columns) > 1:
                    raise DataError(
                        f"{source.name}, lines {start} to {end}: a quote that opens in one row closes in a later one: "
                        'double each " of a text that holds one, and put the text between two'
                    )
            lines.clear()
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = cells
                require_column(source, columns)
                continue
            if len(cells) != len(columns):
                raise DataError(
                    f"{source.name}, line {start}: {len(cells)} columns; expected {len(columns)}, as in the header: "
                    "quote a text that holds a delimiter"
                )
            yield start, json.dumps(dict(zip(columns, cells, strict=True)), ensure_ascii=False).encode()
    except csv.Error as error:
        raise DataError(
            f"{source.name}, line {end + 1}: no CSV in the row that begins here: {error}; double the quotes of a text"
        ) from None
    if joined:
        warn_of_joined_rows(source.name, len(joined), joined[0])


def noted(lines: Iterator[str], seen: list[str]) -> Iterator[str]:
    """Yields lines, and appends each to `seen`."""
    for line in lines:
        seen.append(line)
        yield line


def may_be_rows(lines: list[str], delimiter: str, columns: int) -> bool:
    """Whether each line of a CSV row would be a row by itself, if quotes meant nothing."""
    return all(line.count(delimiter) + 1 == columns for line in lines if line.strip())


@functools.cache  # once, though a file is read twice
def warn_of_joined_rows(name: str, number: int, first: int) -> None:
    print(
        f"WARNING: {name}: {number} row(s) have several lines that look like rows, the first in line {first}: "
        "if no text has line breaks, a quote is not closed there, and the rows behind it are read as one text",
        file=sys.stderr,
    )


def decoded(source: Source) -> Iterator[str]:
    """Yields the lines of a text file with their ends."""
    for number, line in read_raw_lines(source.path):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{source.name}, line {number}: no UTF-8 at byte {error.start}: convert the file, for example by "
                "`iconv -f gb18030 -t utf-8 old > new`"
            ) from None


def require_column(source: Source, columns: list[str]) -> None:
    """Raises DataError if the text's column is missing, or a column has no name of its own."""
    if source.column not in columns:
        raise DataError(
            f"{source.name} has the columns {shorten(columns, 300)}; expected {source.column}: name the text's column "
            "with --text-column"
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{source.name} has the column {twice[0]!r} twice: give each a name of its own")


def parquet_records(source: Source) -> Iterator[tuple[int, bytes]]:
    """Yields the rows of a Parquet file."""
    number = 0
    for batch in parquet_batches(source, WINDOW):
        columns = [as_json(batch.column(name), name) for name in batch.schema.names]
        for values in zip(*columns, strict=True):
            number += 1
            row = dict(zip(batch.schema.names, map(finite, values), strict=True))
            yield number, json.dumps(row, ensure_ascii=False, default=str).encode()


def parquet_batches(source: Source, size: int, whole: bool = False) -> Iterator[Any]:
    """Yields record batches of at most `size` rows. whole: with all columns, even of a source with `text_only`."""
    pa = pyarrow()
    try:
        with pa.parquet.ParquetFile(source.path) as file:
            require_column(source, file.schema_arrow.names)
            wanted = [source.column] if source.text_only and not whole else None
            yield from file.iter_batches(size, columns=wanted)
    except DataError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{source.name} is no Parquet file that can be read ({error}): {missing_file_advice(source.path)}"
        ) from None


def as_json(column: Any, name: str) -> list[Any]:
    """The values of a Parquet column, as JSON has them. Times, decimal numbers and bytes become texts."""
    types = pyarrow().types
    of_text = types.is_temporal(column.type) or types.is_decimal(column.type) or types.is_binary(column.type)
    try:
        return (column.cast(pyarrow().string()) if of_text else column).to_pylist()
    except ValueError as error:
        raise DataError(f"column {name} of type {column.type} can't be read: {error}; drop it, or convert it") from None


def finite(value: Any) -> Any:
    """A value without NaN and infinity, which JSON doesn't have: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [finite(each) for each in value]
    return {key: finite(each) for key, each in value.items()} if isinstance(value, dict) else value
