"""The reader of labelled files in all formats: JSON Lines, JSON arrays, CSV and its kin, Excel, Parquet.

JSON and CSV are not read by the library `datasets`. One bad row there fails a whole file or is dropped with a warning,
line numbers are lost, a text such as 2024-01-01 becomes a time, "true" becomes true, and a long integer a float.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from stages.data.jsonl import parse_json_object, read_jsonl
from stages.data.layout import Layout
from stages.data.lines import BYTE_ORDER_MARK, GZIP_MAGIC, DataError, missing_file_advice, read_raw_lines
from stages.data.row import Row
from stages.data.table import read_table
from stages.data.workbook import read_excel, read_parquet

TABLES = (".csv", ".tsv", ".txt")
WORKBOOKS = (".xlsx", ".xlsm")
WIDE = ("utf-16", "utf-32")  # their line ends are more than a byte
HEAD = 4096


def read_rows(path: Path, layout: Layout) -> Iterator[Row]:
    """Yields the rows of a file, also those that can't be used. Raises DataError if it can't be read at all."""
    match form_of(path):
        case "parquet":
            return read_parquet(path, layout)
        case "excel":
            return read_excel(path, layout)
        case "array":
            return read_json_array(path, layout)
        case "table":
            return read_table(path, list(decoded_lines(path, layout)), layout)
    return read_json_lines(path, layout) if layout.encoding else read_jsonl(path)


def form_of(path: Path) -> str:
    """The format of a file by its first bytes and its name: parquet, excel, array, table or lines (of JSON)."""
    start = head(path)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK\x03\x04") and path.suffix.lower() in WORKBOOKS:
        return "excel"
    name = path.name.lower().removesuffix(".gz")
    first = start.replace(b"\0", b"").removeprefix(BYTE_ORDER_MARK).lstrip(b"\xff\xfe \t\r\n")[:1]
    if name.endswith(".json") and first == b"[":
        return "array"
    return "table" if name.endswith(TABLES) and first not in (b"{", b"") else "lines"


def head(path: Path, size: int = HEAD) -> bytes:
    """The first bytes of a file, unpacked; none if it can't be read, which its reader then reports."""
    try:
        with path.open("rb") as file:
            start = file.read(size)
        if start.startswith(GZIP_MAGIC):
            with gzip.open(path) as packed:
                start = packed.read(size)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""
    return start


def decoded_lines(path: Path, layout: Layout) -> Iterator[tuple[int, str]]:
    """Yields number (from 1) and text of each line, with its end. Bytes of another encoding are lone surrogates."""
    if not layout.encoding:
        for number, line in read_raw_lines(path):
            yield number, line.decode("utf-8", errors="surrogateescape")
    elif codecs.lookup(layout.encoding).name.startswith(WIDE):
        try:
            text = read_whole(path).decode(layout.encoding)
        except UnicodeError as error:
            raise DataError(
                f"{path} is no {layout.encoding}: {error}; expected the right `encoding` in its entry"
            ) from None
        yield from enumerate(text.removeprefix("\ufeff").split("\n"), 1)
    else:
        for number, raw in enumerate(read_whole(path).split(b"\n"), 1):
            text = raw.decode(layout.encoding, errors="surrogateescape")
            yield number, text.removeprefix("\ufeff")


def read_whole(path: Path) -> bytes:
    """The content of a file, unpacked."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file: {error}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no file that can be read ({error}): {missing_file_advice(path)}") from None


def read_json_lines(path: Path, layout: Layout) -> Iterator[Row]:
    """Yields a row for each line that isn't blank, also where it holds no object."""
    for number, text in decoded_lines(path, layout):
        if text.strip():
            yield json_row(number, text.rstrip("\r\n").encode("utf-8", errors="surrogateescape"), layout)


def json_row(number: int, line: bytes, layout: Layout) -> Row:
    """The row of a JSON object, or the reason why there is none."""
    raw = line.decode("utf-8", errors="backslashreplace")
    try:
        return Row(number, raw, parse_json_object(line))
    except ValueError as error:
        return Row(number, raw, problem=str(error).replace("no UTF-8", f"no {layout.codec}"))


def read_json_array(path: Path, layout: Layout) -> Iterator[Row]:
    """Yields the elements of a JSON array. Their number, from 1, is the line: many arrays have a single line."""
    text = "".join(line if line.endswith("\n") else line + "\n" for _, line in decoded_lines(path, layout))
    decoder, number = json.JSONDecoder(), 0
    start = skip_blanks(text, text.index("[") + 1)
    try:
        while text[start : start + 1] != "]":
            _, end = decoder.raw_decode(text, start)
            after = skip_blanks(text, end)
            if text[after : after + 1] not in (",", "]"):
                raise json.JSONDecodeError("expected a comma or the end of the array", text, after)
            number += 1
            yield json_row(number, text[start:end].encode("utf-8", errors="surrogateescape"), layout)
            start = skip_blanks(text, after + 1) if text[after] == "," else after
        if (rest := skip_blanks(text, start + 1)) < len(text):
            raise json.JSONDecodeError("expected nothing after the end of the array", text, rest)
    except (ValueError, RecursionError) as error:  # ValueError: also an integer of over 4,300 digits
        where = getattr(error, "lineno", 1)
        raise DataError(
            f"{path}:{where}: no JSON array from here on, after {number} elements: {error}; correct it there"
        ) from None


def skip_blanks(text: str, at: int) -> int:
    """The first place from `at` on that holds no blank of JSON."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
