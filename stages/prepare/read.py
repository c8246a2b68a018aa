"""Raw JSON Lines to examples; a row that can't be one is set aside with file, line and reason."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.report import replacing
from stages.text.example import Example
from stages.text.jsonl import DataError, input_text, lines, parse_object, require_encodable, shorten

LABELS = {"true": True, "false": False}
SHOWN = 10


@dataclass(frozen=True)
class Rejected:
    """A row that was set aside; `row` is its text, so that it can be mended and put back."""

    file: str
    line: int
    reason: str
    row: str


@dataclass
class Rows:
    """What a raw file held. total: rows that are not blank."""

    examples: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.examples) + len(self.rejected)


def read_rows(path: Path) -> Rows:
    """Reads one object a line: `input` and `label`, optionally `group` and `category`; other keys are let be.

    Raises DataError if the file is missing, damaged or empty.
    """
    rows = Rows()
    for number, line in lines(path):
        try:
            rows.examples.append(parse(line, f"{path.name}:{number}"))
        except ValueError as error:
            text = line.decode("utf-8", errors="backslashreplace")
            rows.rejected.append(Rejected(str(path), number, str(error), text))
    if not rows.total:
        raise DataError(f"{path} has no rows; expected JSON Lines with the keys input and label")
    return rows


def parse(line: bytes, source: str) -> Example:
    """An example from one line. Raises ValueError with the reason why it is none."""
    row = parse_object(line)
    text = input_text(row)
    if "label" not in row:
        raise ValueError("the key label is missing")
    return Example(text, parse_label(row["label"]), optional(row, "group"), optional(row, "category"), source)


def optional(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{key} is {shorten(value)}; expected a text or a whole number")
    require_encodable(str(value))
    return str(value)


def parse_label(value: Any) -> bool:
    """True, false, 1, 0, and "true" or "false" in any case."""
    if isinstance(value, str):
        value = LABELS.get(value.strip().lower(), value)
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise ValueError(f"label is {shorten(value)}; expected true or false, 1 or 0")


def write_rejected(path: Path, rejected: list[Rejected]) -> None:
    with replacing(path) as file:
        for row in rejected:
            file.write(json.dumps(vars(row), ensure_ascii=False, sort_keys=True) + "\n")


def limit_rejected(rejected: list[Rejected], total: int, max_fraction: float) -> None:
    """Raises DataError with the first ten rejected rows if they are more than `max_fraction` of all, or all."""
    if rejected and len(rejected) == total:
        raise DataError(
            f"none of the {total} rows of {rejected[0].file} can be read; the first: {rejected[0].reason}. "
            "Expected JSON Lines in UTF-8, one object a line with input and label: no array, no CSV, no other encoding "
            "(for GBK, `iconv -f gbk -t utf-8`)"
        )
    if len(rejected) > max_fraction * total:
        shown = "\n".join(f"  {row.file}:{row.line}: {row.reason}" for row in rejected[:SHOWN])
        raise DataError(
            f"{len(rejected)} of {total} rows can't be used, more than prepare.max_rejected_fraction = {max_fraction}; "
            f"the first {min(SHOWN, len(rejected))}:\n{shown}\nMend the rows (all: data/processed/rejected.jsonl), or "
            "raise the limit."
        )
