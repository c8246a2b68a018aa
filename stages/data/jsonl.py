"""JSON Lines: one object a line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.data.lines import read_lines
from stages.data.row import Row
from stages.data.values import shorten


def read_jsonl(path: Path) -> Iterator[Row]:
    """Yields a row for each line that isn't blank, also where it holds no object."""
    for number, line in read_lines(path):
        raw = line.decode("utf-8", errors="backslashreplace")
        try:
            yield Row(number, raw, parse_json_object(line))
        except ValueError as error:
            yield Row(number, raw, problem=str(error))


def parse_json_object(line: bytes) -> dict[str, Any]:
    """The JSON object in a line. Raises ValueError with the reason if there is none."""
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=unique_keys, parse_float=finite, parse_constant=finite)
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        if b"\r" in line:
            raise ValueError("no JSON: lines end in a bare carriage return (\\r); expected \\n or \\r\\n") from None
        raise ValueError(f"no JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError(f"found {type(row).__name__}; expected an object")
    return row


def finite(number: str) -> float:
    """A number of JSON. Raises ValueError for NaN and infinity, which Python's parser would accept."""
    if not math.isfinite(float(number)):
        raise ValueError(f"a number that JSON does not have: {shorten(number)}")
    return float(number)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError if a key is repeated."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice")
    return row
