"""Reads the rows to classify, in windows. All values keep their spelling; the verdict is added."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

from stages.bands import BANDS
from stages.data.jsonl import parse_json_object
from stages.data.lines import STANDARD_INPUT, DataError
from stages.data.values import input_text, require_encodable
from stages.model.scoring import WINDOW
from stages.predict.formats import Format
from stages.predict.source import Source, records

ALWAYS = ("label", "probability", "log_odds")  # keys of a classified row
SOMETIMES = ("band", "sentences")  # with select.bands, and with --explain
SHOWN = 10
SPACE = re.compile(r"[ \t\r]*")

Lines = list[tuple[int, bytes]]  # the number and the bytes of each line that isn't blank


@dataclass(frozen=True)
class Row:
    """A row to classify. Each of `members` is a key, and key and value as written, so that 1.10 stays 1.10."""

    text: str
    members: list[tuple[str, str, str]]

    def classified(self, label: bool, probability: float, further: Mapping[str, Any] = MappingProxyType({})) -> str:
        """The row as a line of JSON with its verdict. If it has such keys, their values are replaced.

        further: values to add beside label and probability, by key.
        """
        values = {"label": label, "probability": probability, **further}
        added = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
        stale = outdated({key: value for key, _, value in self.members}, added)
        written = [f"{name}: {added.pop(key, value)}" for key, name, value in self.members if key not in stale]
        written += [f'"{key}": {value}' for key, value in added.items()]
        return f"{{{', '.join(written)}}}\n"


def outdated(values: Mapping[str, str], added: Collection[str]) -> set[str]:
    """Which keys of a row are of an earlier verdict and not added by the new one. Others of these names are its own.

    >>> verdict = {"label": "true", "probability": ".9", "log_odds": "2.2"}
    >>> outdated(verdict | {"band": '"review"'}, verdict), outdated(verdict | {"band": '"mine"'}, verdict)
    ({'band'}, set())
    """
    if not values.keys() >= set(ALWAYS):
        return set()
    return {key for key in SOMETIMES if key in values and key not in added and OF_VERDICT[key](json.loads(values[key]))}


def are_sentences(value: Any) -> bool:
    """Whether a value is what --explain adds. A table holds it as a text."""
    if isinstance(value, str) and value.startswith("["):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    return isinstance(value, list) and all(isinstance(each, dict) and set(each) == {"text", "effect"} for each in value)


OF_VERDICT: dict[str, Callable[[Any], bool]] = {
    "band": lambda value: isinstance(value, str) and value in BANDS,
    "sentences": are_sentences,
}


def parse_row(line: bytes, column: str = "input", of_table: bool = False) -> Row:
    """The row of a line, whose text is at key `column`. Raises ValueError with the reason if it can't be classified.

    of_table: whether it is of a table, where "nan" and the like are missing texts.
    """
    row = parse_json_object(line)
    text = input_text(row, column, of_table)
    if b"\\u" in line:  # the only way to a surrogate, which other tools can't read
        require_encodable(json.dumps(row, ensure_ascii=False))
    return Row(text, members(line.decode("utf-8").replace("\r", " ")))


def members(line: str) -> list[tuple[str, str, str]]:
    """For each member of the JSON object in a line: its key, the key as written, and the value as written.

    >>> members('{"a": 1.10, "\\\\u0062" : [1,  2]}')
    [('a', '"a"', '1.10'), ('b', '"\\\\u0062"', '[1,  2]')]
    """
    found = []
    decoder = json.JSONDecoder()
    at = skip_space(line, line.index("{") + 1)
    while line[at] != "}":
        key, key_end = json.decoder.scanstring(line, at + 1)  # type: ignore[attr-defined]
        start = skip_space(line, skip_space(line, key_end) + 1)  # past the colon
        _, end = decoder.raw_decode(line, start)
        found.append((key, line[at:key_end], line[start:end]))
        at = skip_space(line, end)
        if line[at] == ",":
            at = skip_space(line, at + 1)
    return found


def skip_space(line: str, at: int) -> int:
    match = SPACE.match(line, at)
    return match.end() if match else at


def count_rows(source: Source) -> int:
    """The number of rows of a file. Raises DataError that lists the first rows that can't be classified.

    Raises NoRowsError if there are none.
    """
    good, bad = 0, 0
    shown = []
    for number, line in records(source):
        try:
            parse_row(line, source.column, source.is_table)
            good += 1
        except ValueError as error:
            bad += 1
            shown += [f"  {source.path}:{number}: {error}"] if bad <= SHOWN else []
    if bad:
        listed = "\n".join(shown)
        raise DataError(f"{bad} of {bad + good} rows hold no text to classify:\n{listed}\nFix them first.")
    if not good:
        raise empty(source)
    return good


class NoRowsError(DataError):
    """An input that holds no row."""


def is_stream(source: Source) -> bool:
    """Whether the rows can be read only once, as those of a pipe."""
    path = source.path
    return path == STANDARD_INPUT or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


def empty(source: Source) -> NoRowsError:
    expected = "JSON Lines with the key" if source.format == Format.JSONL else "rows with the column"
    return NoRowsError(f"{source.name} is empty; expected {expected} {source.column}")


def windows(source: Source) -> Iterator[Lines]:
    """The rows as lines, WINDOW at a time. Windows are scored independently, so a run can resume at any."""
    rest = records(source)
    while window := list(islice(rest, WINDOW)):
        yield window


def parse_window(source: Source, window: Lines) -> list[Row]:
    """The rows of a window. Raises DataError at the first that can't be classified."""
    rows = []
    for number, line in window:
        try:
            rows.append(parse_row(line, source.column, source.is_table))
        except ValueError as error:
            raise DataError(
                f"{source.name}, line {number}: {error}. The rows from line {window[0][0]} on were not scored: "
                "fix the line and run the command again"
            ) from None
    return rows


def digest(window: Lines) -> str:
    """sha256 of a window's lines, without blank lines and line ends."""
    return hashlib.sha256(b"\n".join(line for _, line in window)).hexdigest()
