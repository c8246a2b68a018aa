"""Raw rows to examples. A row that can't be used is rejected with file, line and reason."""

import datetime
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stages.artifacts import replacing
from stages.data.files import read_rows
from stages.data.layout import Layout
from stages.data.lines import DataError
from stages.data.row import Row
from stages.data.values import identifier, input_text, optional_text, parse_label, parse_time, required
from stages.text.example import Example

SHOWN = 10
PLAIN = Layout()
# What to do if no row of a file can be used, by the start of the first reason.
ADVICE = {
    "no UTF-8": (
        "Name the `encoding` in the entry of datasets, such as gb18030, or convert the file to UTF-8 "
        "(of GBK: `iconv -f gbk -t utf-8 old > new`). `python -m stages.prepare --check FILE` guesses the encoding."
    ),
    "no JSON": (
        "Expected JSON Lines in UTF-8, one object a line. A file whose name ends in .csv, .tsv or .txt is read as a "
        "table, and one that ends in .json as an array: `python -m stages.prepare --check FILE` prints its entry."
    ),
    "found list": "Expected one object a line. An array is read from a file whose name ends in .json: rename it.",
}


@dataclass(frozen=True)
class Rejected:
    """A row that can't be used. `row` is its text, so that it can be corrected and put back."""

    file: str
    line: int
    reason: str
    row: str


@dataclass
class Rows:
    """The content of raw files.

    used: how many rows of each file became examples or parts of them. left_out: files of a folder that were not read,
    each with the reason. doubts: what may be wrong with rows that were used, a sentence each. times: when a row was
    written, by its source, if the layout names a column of times.
    """

    examples: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    times: dict[str, datetime.datetime] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Rows that are not blank."""
        return self.used.total() + len(self.rejected)

    def add(self, other: "Rows") -> None:
        """Appends the rows of another file."""
        self.examples += other.examples
        self.rejected += other.rejected
        self.used += other.used
        self.left_out |= other.left_out
        self.doubts += other.doubts
        self.times |= other.times


def together(parts: Iterable[Rows]) -> Rows:
    """The rows of several files."""
    whole = Rows()
    for part in parts:
        whole.add(part)
    return whole


def read_labelled(path: Path, name: str | None = None, layout: Layout = PLAIN) -> Rows:
    """Reads one text a row, in any format of `read_rows`. Columns that the layout does not name are ignored.

    name: the file's name in the source of each example; None takes its own.
    Raises DataError if the file is missing, damaged or empty, or lacks a column that the layout names.
    """
    rows = Rows()
    absent = set(map(str, layout.columns.values()))
    for row in read_rows(path, layout):
        absent -= row.values.keys()
        try:
            example = to_example(row, name or path.name, layout)
            if layout.name("time"):
                rows.times[example.source] = parse_time(required(row.values, layout.name("time")), layout.name("time"))
            rows.examples.append(example)
        except ValueError as error:
            rows.rejected.append(Rejected(str(path), row.line, str(error), row.raw))
    rows.used[str(path)] = len(rows.examples)
    if rows.examples and absent:  # a table without it is refused by its header
        raise DataError(
            f"{path} has no row with {', '.join(sorted(absent))}; expected what `columns` names in its entry of "
            "datasets: correct the name, or leave it out"
        )
    alone = sum(not example.group for example in rows.examples)
    if 0 < alone < len(rows.examples):
        rows.doubts.append(
            f"{alone} of {len(rows.examples)} rows of {path} have no group: if they belong to cases (merged cells?), "
            "rows of one case may end up in different splits"
        )
    if not rows.total:
        form = "JSON Lines with the keys" if layout == PLAIN else "rows with the columns"
        raise DataError(f"{path} has no rows; expected {form} {layout.name('text')} and {layout.name('label')}")
    return rows


def to_example(row: Row, file: str, layout: Layout) -> Example:
    """The example in a row. Raises ValueError with the reason if there is none."""
    values = row.require_values()
    text, label = layout.name("text"), layout.name("label")
    return Example(
        input_text(values, text, row.of_table),
        parse_label(required(values, label), label, layout.labels),
        identifier(values, layout.name("group")),
        optional_text(values, layout.name("category")),
        f"{file}:{row.line}",
    )


def write_rejected(path: Path, rejected: list[Rejected]) -> None:
    with replacing(path) as file:
        for row in rejected:
            file.write(json.dumps(vars(row), ensure_ascii=False, sort_keys=True) + "\n")


def limit_rejected(rows: Rows, max_fraction: float) -> None:
    """Raises DataError if more than `max_fraction` of all rows, or all rows of one file, are rejected."""
    for file, count in Counter(row.file for row in rows.rejected).items():
        if not rows.used[file]:
            own = [row for row in rows.rejected if row.file == file]
            advice = next((text for start, text in ADVICE.items() if own[0].reason.startswith(start)), "")
            raise DataError(f"none of the {count} rows of {file} can be used; {list_first(own)}\n{advice}".strip())
    if len(rows.rejected) > max_fraction * rows.total:
        raise DataError(
            f"{len(rows.rejected)} of {rows.total} rows can't be used, more than prepare.max_rejected_fraction = "
            f"{max_fraction}; {list_first(rows.rejected)}\nCorrect the rows (all: data/processed/rejected.jsonl), or "
            "raise the limit."
        )


def list_first(rejected: list[Rejected]) -> str:
    shown = "\n".join(f"  {row.file}:{row.line}: {row.reason}" for row in rejected[:SHOWN])
    return f"the first {min(SHOWN, len(rejected))}:\n{shown}"
