"""JSON Lines as other people write them: with or without byte order mark, LF or CRLF, plain or gzip."""

import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages import UserError

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STANDARD_INPUT = Path("-")


class DataError(UserError):
    """The data can't be used; the message names file and line and says what to do."""


class Prefixed(io.RawIOBase):
    """A stream that gives back the bytes that were read from it to see what it holds."""

    def __init__(self, start: bytes, rest: io.BufferedReader):
        self.start, self.rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        found = self.start or self.rest.read1(len(buffer))
        found, self.start = found[: len(buffer)], found[len(buffer) :]
        buffer[: len(found)] = found
        return len(found)


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that aren't blank, numbered from 1. Only \\n ends a line: a text may hold other separators.

    The path is opened once and read as it comes, so pipes work; `-` is standard input.
    Raises DataError if the file is missing or a damaged gzip file.
    """
    try:
        with open(0, "rb", closefd=False) if path == STANDARD_INPUT else path.open("rb") as file:
            start = file.read(len(GZIP_MAGIC))
            whole = io.BufferedReader(Prefixed(start, file))
            for number, line in enumerate(gzip.GzipFile(fileobj=whole) if start == GZIP_MAGIC else whole, 1):
                line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
                if line.strip():
                    yield number, line.rstrip(b"\r\n")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{path} is no file that can be read ({error}): put one there, or name another") from None


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises ValueError with the reason why there is none."""
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=unique_keys, parse_float=finite, parse_constant=finite)
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError(f"found {type(row).__name__}; expected an object")
    return row


def finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"a number that JSON does not have: {shorten(number)}")
    return float(number)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice")
    return row


def input_text(row: dict[str, Any]) -> str:
    """The text of a row. Raises ValueError where it is missing, blank or can't be encoded."""
    if "input" not in row:
        raise ValueError("the key input is missing")
    text = row["input"]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"input is {shorten(text)}; expected a text that is not blank")
    require_encodable(text)
    return text


def require_encodable(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"a lone surrogate, {text[error.start]!a}, at character {error.start}") from None


def shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
