"""Raw JSON Lines to examples; a row that can't be one is set aside with file, line and reason."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.artifacts import replacing
from stages.data.jsonl import (
    DataError,
    input_text,
    is_visible,
    lines,
    parse_object,
    require_encodable,
    required,
    shorten,
)
from stages.text.example import Example

LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
# What pandas and Excel write where a value is missing or could not be computed.
MISSING = {"nan", "NaN", "NaT", "None", "<NA>", "null", "NULL", "N/A", "undefined"}
MISSING |= {"#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!"}
SHORTENED = re.compile(r"\d([.,]\d+)?[Ee]\+\d+")  # Excel's 1.38E+10, in which different long numbers look the same
EXACT = 2**53  # whole numbers below it are exact in a float
SHOWN = 10
# The start of a reason, and what to do where it is that of a whole file.
ADVICE = {
    "no UTF-8": "Convert the file to UTF-8 (of GBK: `iconv -f gbk -t utf-8 old > new`).",
    "no JSON": (
        "Expected JSON Lines in UTF-8, one object a line: no array, no object over several lines, no other encoding "
        "(of GBK: `iconv -f gbk -t utf-8 old > new`). CSV is read where `dialogues` names a file that ends in .csv."
    ),
    "found list": "Expected one object a line: `jq -c '.[]' old.json > new.jsonl` turns an array into JSON Lines.",
}


@dataclass(frozen=True)
class Rejected:
    """A row that was set aside; `row` is its text, so that it can be mended and put back."""

    file: str
    line: int
    reason: str
    row: str


@dataclass
class Rows:
    """What raw files held.

    used: of each file, how many rows became examples or parts of them. left_out: files of a folder that were not read,
    each with the reason. doubts: what may be wrong with rows that were used, a sentence each.
    """

    examples: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Rows that are not blank."""
        return self.used.total() + len(self.rejected)

    def add(self, other: "Rows") -> None:
        self.examples += other.examples
        self.rejected += other.rejected
        self.used += other.used
        self.left_out |= other.left_out
        self.doubts += other.doubts


def together(parts: Iterable[Rows]) -> Rows:
    """The rows of several files."""
    whole = Rows()
    for part in parts:
        whole.add(part)
    return whole


def read_rows(path: Path, name: str | None = None) -> Rows:
    """Reads one object a line: `input` and `label`, optionally `group` and `category`; other keys are ignored.

    name: of the file in each example's source; None: the file's own.
    Raises DataError if the file is missing, damaged or empty.
    """
    rows = Rows()
    for number, line in lines(path):
        try:
            rows.examples.append(parse(line, f"{name or path.name}:{number}"))
        except ValueError as error:
            text = line.decode("utf-8", errors="backslashreplace")
            rows.rejected.append(Rejected(str(path), number, str(error), text))
    rows.used[str(path)] = len(rows.examples)
    alone = sum(not example.group for example in rows.examples)
    if 0 < alone < len(rows.examples):
        rows.doubts.append(
            f"{alone} of {len(rows.examples)} rows of {path} have no group: if they belong to cases (merged cells?), "
            "rows of one case may part between splits"
        )
    if not rows.total:
        raise DataError(f"{path} has no rows; expected JSON Lines with the keys input and label")
    return rows


def parse(line: bytes, source: str) -> Example:
    """An example from one line. Raises ValueError with the reason why it is none."""
    row = parse_object(line)
    text = input_text(row)
    label = parse_label(required(row, "label"))
    return Example(text, label, identifier(row, "group"), optional(row, "category"), source)


def optional(row: dict[str, Any], key: str) -> str:
    """A text or whole number as a text without blanks around it, 3.0 as 3; empty where it is missing."""
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():  # pandas writes whole numbers so where others are missing
        if abs(value) >= EXACT:
            raise ValueError(f"{key} is {value}, too large to be exact in this form; write it as a text")
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{key} is {shorten(value)}; expected a text or a whole number")
    require_encodable(str(value))
    text = str(value).strip()
    return text if is_visible(text) else ""


def identifier(row: dict[str, Any], key: str) -> str:
    """The name of what the row belongs to. Raises ValueError for what different names become in an export."""
    name = optional(row, key)
    if name in MISSING:
        raise ValueError(f"{key} is {name!r}, which programs write for a missing value; expected a name")
    if SHORTENED.fullmatch(name):
        raise ValueError(f"{key} is {name!r}, a number that a spreadsheet shortened; format the column as text")
    return name


def parse_label(value: Any, key: str = "label") -> bool:
    """True or false, 1 or 0, 1.0 or 0.0, as such or as a text in any case."""
    word = str(value).strip().lower() if isinstance(value, str | int | float) else None
    if word not in LABELS:
        raise ValueError(f"{key} is {shorten(value)}; expected true or false, 1 or 0")
    return LABELS[word]


def write_rejected(path: Path, rejected: list[Rejected]) -> None:
    with replacing(path) as file:
        for row in rejected:
            file.write(json.dumps(vars(row), ensure_ascii=False, sort_keys=True) + "\n")


def limit_rejected(rows: Rows, max_fraction: float) -> None:
    """Raises DataError if more than `max_fraction` of all rows are rejected, or all rows of a file; lists the first."""
    for file, count in Counter(row.file for row in rows.rejected).items():
        if not rows.used[file]:
            own = [row for row in rows.rejected if row.file == file]
            advice = next((text for start, text in ADVICE.items() if own[0].reason.startswith(start)), "")
            raise DataError(f"none of the {count} rows of {file} can be used; {listed(own)}\n{advice}".strip())
    if len(rows.rejected) > max_fraction * rows.total:
        raise DataError(
            f"{len(rows.rejected)} of {rows.total} rows can't be used, more than prepare.max_rejected_fraction = "
            f"{max_fraction}; {listed(rows.rejected)}\nCorrect the rows (all: data/processed/rejected.jsonl), or raise "
            "the limit."
        )


def listed(rejected: list[Rejected]) -> str:
    shown = "\n".join(f"  {row.file}:{row.line}: {row.reason}" for row in rejected[:SHOWN])
    return f"the first {min(SHOWN, len(rejected))}:\n{shown}"
