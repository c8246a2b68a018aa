"""Turns classified rows, which are JSON Lines, into the format that the name of `--out` ends in."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from stages.artifacts import UnixRows
from stages.bands import BANDS
from stages.data.lines import DataError
from stages.errors import UserError
from stages.predict.formats import DELIMITERS, Format, format_of, is_packed, pyarrow, require_writable_format
from stages.predict.read import ALWAYS, SOMETIMES, members
from stages.predict.source import Source, as_json, parquet_batches

ROWS_AT_ONCE = 16384  # of a Parquet file's row group
LARGEST = 2**63  # whole numbers of a Parquet column are below it
EXACT = 2**53  # below it they are exact as a float, too

Converter = Callable[[Path, BinaryIO], None]  # from a file of classified rows to an open file


def converter(out: Path, source: Source, explained: bool) -> Converter | None:
    """What makes `out` of classified rows, None if they stay as they are. Raises UserError if nothing can.

    Args:
        out: the name of the file.
        source: where the rows come from.
        explained: whether the rows have sentences.
    """
    require_writable_format(out)
    kind = format_of(out)
    if kind == Format.PARQUET:
        pyarrow()
        if is_packed(out):
            raise UserError(f"--out {out}: a Parquet file is compressed by itself; expected a name without .gz")
        return lambda rows, file: write_parquet(rows, file, source, explained)
    if kind in DELIMITERS:
        return lambda rows, file: write_text(
            file, is_packed(out), lambda text: write_table(rows, text, DELIMITERS[kind])
        )
    if is_packed(out):
        return lambda rows, file: write_text(file, True, lambda text: text.writelines(lines_of(rows)))
    return None


def write_text(file: BinaryIO, packed: bool, write: Callable[[TextIO], None]) -> None:
    """Lets `write` write text to a file. packed: by gzip, without a time, so that the same rows give the same bytes."""
    binary = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if packed else file
    text = io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
    write(text)
    text.flush()
    text.detach()
    if packed:
        binary.close()


def lines_of(rows: Path) -> Iterator[str]:
    with rows.open(encoding="utf-8", newline="\n") as file:
        yield from file


def write_table(rows: Path, file: TextIO, delimiter: str) -> None:
    """Writes rows below a header, which names all keys in the order of their first appearance.

    Texts are written as they are, null as nothing, and all other values in their JSON spelling.
    """
    columns = list(dict.fromkeys(key for line in lines_of(rows) for key in json.loads(line)))
    writer = csv.writer(UnixRows(file), delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(columns)
    for line in lines_of(rows):
        values = {key: as_text(value) for key, _, value in members(line.rstrip("\n"))}
        writer.writerow([values.get(key, "") for key in columns])


def as_text(value: str) -> str:
    """A value of JSON as a cell holds it.

    >>> [as_text(value) for value in ('"a\\\\n"', "1.10", "null", "[1]")]
    ['a\\n', '1.10', '', '[1]']
    """
    return json.loads(value) if value.startswith('"') else "" if value == "null" else value


def write_parquet(rows: Path, file: BinaryIO, source: Source, explained: bool) -> None:
    """Writes rows as Parquet. Those of a Parquet file keep all columns as they are there.

    Args:
        rows: classified rows.
        file: where to.
        source: where the rows come from.
        explained: whether the rows have sentences.
    """
    pa = pyarrow()
    added = added_fields(explained)
    tables = joined(rows, source, added) if source.text_only else typed(rows, added)
    writer = None
    try:
        for table in tables:
            writer = writer or pa.parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()


def added_fields(explained: bool) -> dict[str, Any]:
    """The columns that predict adds, with their types."""
    pa = pyarrow()
    fields = {"label": pa.bool_(), "probability": pa.float64(), "log_odds": pa.float64()}
    if explained:
        fields["sentences"] = sentences_type()
    return fields


def joined(rows: Path, source: Source, added: dict[str, Any]) -> Iterator[Any]:
    """Yields tables of a Parquet file with the added columns. Raises DataError if its texts are not those of `rows`.

    Args:
        rows: classified rows, of which only the text and the added keys count.
        source: the file.
        added: types of the added columns.
    """
    pa = pyarrow()
    lines: Iterator[dict[str, Any]] = map(json.loads, lines_of(rows))
    first = list(islice(lines, 1))
    if first and "band" in first[0]:  # predict's: it reads no column but the text's, whose name is another
        added = added | {"band": pa.string()}
    lines = chain(first, lines)
    changed = DataError(f"{source.name} has changed while it was scored: leave it alone meanwhile, and start again")
    for batch in parquet_batches(source, ROWS_AT_ONCE, whole=True):
        table, found = pa.Table.from_batches([batch]), list(islice(lines, len(batch)))
        table = without_earlier(table, added)
        if [row[source.column] for row in found] != as_json(batch.column(source.column), source.column):
            raise changed
        for name, kind in added.items():
            values = pa.array([row[name] for row in found], kind)
            at = table.schema.get_field_index(name)
            table = table.append_column(name, values) if at < 0 else table.set_column(at, name, values)
        yield table
    if next(lines, None):
        raise changed


def without_earlier(table: Any, added: Collection[str]) -> Any:
    """A table without the bands and sentences of an earlier verdict that the new one has not: null in their place."""
    pa, names = pyarrow(), set(table.column_names)
    for name in SOMETIMES if names >= set(ALWAYS) else ():
        if name not in names or name in added:
            continue
        column = table.column(name)
        if name == "sentences" and column.type == sentences_type():
            column = pa.nulls(len(table), column.type)
        elif name == "band" and (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            stale = pa.compute.is_in(column, pa.array(BANDS, column.type))
            column = pa.compute.if_else(stale, pa.scalar(None, column.type), column)
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table


def sentences_type() -> Any:
    pa = pyarrow()
    return pa.list_(pa.struct({"text": pa.string(), "effect": pa.float64()}))


def typed(rows: Path, added: dict[str, Any]) -> Iterator[Any]:
    """Yields tables of rows that had no types. added: types of the added columns."""
    pa = pyarrow()
    kinds: dict[str, set[str]] = {}
    for line in lines_of(rows):
        for key, _, value in members(line.rstrip("\n")):
            kinds.setdefault(key, set()).add(kind_of(value))
    fields = {key: added.get(key) or type_of(found) for key, found in kinds.items()}
    schema = pa.schema(fields.items())
    lines = lines_of(rows)
    while some := list(islice(lines, ROWS_AT_ONCE)):
        parsed = [{key: value for key, _, value in members(line.rstrip("\n"))} for line in some]
        yield pa.table([column_of(parsed, key, kind) for key, kind in fields.items()], schema=schema)


def kind_of(value: str) -> str:
    """What a value of JSON is, by its spelling.

    >>> [kind_of(value) for value in ('"1"', "true", "null", "-1", "1e5", "9" * 17, "9" * 20, "[]")]
    ['text', 'bool', 'null', 'int', 'float', 'long', 'other', 'other']
    """
    if value.lstrip("-").isdecimal():
        size = abs(int(value))
        return "int" if size < EXACT else "long" if size < LARGEST else "other"
    return {'"': "text", "t": "bool", "f": "bool", "n": "null", "[": "other", "{": "other"}.get(value[0], "float")


def type_of(kinds: Iterable[str]) -> Any:
    """The type of a column of such values: a text, unless another type holds all of them exactly."""
    pa = pyarrow()
    found = {*kinds} - {"null"}
    for type_, held in ((pa.bool_(), {"bool"}), (pa.int64(), {"int", "long"}), (pa.float64(), {"int", "float"})):
        if found and found <= held:
            return type_
    return pa.string()


def column_of(rows: list[dict[str, str]], key: str, kind: Any) -> Any:
    """The values of a column. rows: values as written, by key. A value of a text column keeps its JSON spelling."""
    pa = pyarrow()
    values = (row.get(key, "null") for row in rows)
    if kind == pa.string():
        return pa.array([None if value == "null" else as_text(value) for value in values], kind)
    return pa.array([json.loads(value) for value in values], kind)
