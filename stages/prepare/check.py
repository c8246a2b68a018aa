"""Looks at a file that someone has: what it is, which rows are bad, and which entry of `datasets` reads it."""

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.data.files import form_of, head
from stages.data.layout import ROLES, Layout, label_words
from stages.data.lines import FOREIGN, DataError, missing_file_advice
from stages.data.values import shorten
from stages.errors import UserError
from stages.params import PARAMS_FILE
from stages.params_file import read_yaml
from stages.prepare.guess import detect_encoding, guess, guess_labels
from stages.prepare.read import SHOWN, read_labelled

BINARY_FORMS = {"excel": "an Excel workbook", "parquet": "a Parquet file"}


def check(path: Path, max_rejected_fraction: float) -> None:
    """Prints what the file holds and the entry that reads it. Raises UserError where no entry can be given."""
    if not path.is_file():
        raise DataError(f"{path} is no file that can be read: {missing_file_advice(path)}")
    encoding = detect_encoding(path)
    if found := kind(path, encoding):
        print(f"check: {path}: {found}")
    layout, names = guess(path, encoding)
    print(f"check: columns {', '.join(names)}; " + ", ".join(f"{r} is {layout.name(r)!r}" for r in layout.columns))
    print_unused(names, layout)
    if "time" in layout.columns:
        print("check: the column of times splits the rows by time: take it out of the entry for a split by unit")
    labels = guess_labels(path, layout)
    layout = Layout(layout.columns, label_words(labels), encoding, layout.quotes)
    rows = read_labelled(path, layout=layout)
    fraud = sum(example.label for example in rows.examples)
    print(f"check: {len(rows.examples)} of {rows.total} rows can be used, {fraud} of them fraud")
    for meaning, word in ((True, "fraud"), (False, "legitimate")):  # a wrong guess of labels or encoding shows here
        text = next((example.input for example in rows.examples if example.label is meaning), None)
        if text is not None:
            print(f"check: as {word}: {shorten(text)}")
    for row in rows.rejected[:SHOWN]:
        print(f"check: {row.file}:{row.line}: {row.reason}")
    if len(rows.rejected) > SHOWN:
        print(f"check: … and {len(rows.rejected) - SHOWN} more")
    texts = Counter((example.input, example.label) for example in rows.examples)
    both = sum((text, not label) in texts for text, label in texts) // 2
    twice = texts.total() - len({text for text, _ in texts})
    print(f"check: {twice} rows repeat a text; {both} texts have both labels")
    for doubt in rows.doubts:
        print(f"check: WARNING: {doubt}")
    if not 0 < fraud < len(rows.examples):
        raise UserError(f"{path}: {fraud} of {len(rows.examples)} usable rows are fraud; expected some of both")
    if len(rows.rejected) > max_rejected_fraction * rows.total:
        print(
            f"check: WARNING: more bad rows than prepare.max_rejected_fraction = {max_rejected_fraction} allows: "
            "correct them, or raise it"
        )
    print_entry(path, layout, labels)


def kind(path: Path, encoding: str) -> str:
    """What a file is, in words; empty for one whose reader will refuse it."""
    form = form_of(path)
    if form in BINARY_FORMS:
        return BINARY_FORMS[form]
    return "" if head(path).startswith(tuple(FOREIGN)) else f"in {encoding or 'UTF-8'}"


def print_unused(names: list[str], layout: Layout) -> None:
    """Prints the columns that no role uses. If no group was found, also what a missing group does."""
    unused = [name for name in names if name.strip() and name not in map(layout.name, ROLES)]
    if unused and "group" in layout.columns:
        print(f"check: columns that are not used: {', '.join(unused)}")
    elif unused:
        print(
            f"check: columns that are not used: {', '.join(unused)}. If one names a case or a speaker, add "
            "`group: NAME` to `columns`: otherwise rows of a case land in train and test alike"
        )


def print_entry(path: Path, layout: Layout, labels: Mapping[str, list[str]]) -> None:
    """Prints the entry of the data set, and how it is used."""
    name = re.sub(r"[^a-z0-9_]+", "_", path.name.lower().partition(".")[0]).strip("_") or "mine"
    if name[0].isdigit() or name in ("null", "true", "false"):  # which YAML and DVC read as no text
        name = f"data_{name}"
    while name in read_yaml(PARAMS_FILE)["datasets"]:
        name += "_new"
    place = Path(os.path.relpath(path))  # also of an absolute path
    raw = place.parts[:2] in (("data", "raw"), ("data", "sample"))
    place = place if raw else Path("data/raw") / path.name
    if not raw:
        print(f"check: first copy it: cp {shlex.quote(str(path))} data/raw/")
    print(f"check: put its line under `datasets` in params.yaml, and run `dvc exp run -S dataset={name}`:\n")
    print(f"datasets:\n  {name}: {flow(entry(place, layout, labels))}")


def entry(place: Path, layout: Layout, labels: Mapping[str, list[str]]) -> dict[str, Any]:
    """The entry of `datasets`, without what is the default."""
    columns = {role: name for role, name in layout.columns.items() if name != ROLES[role]}
    if layout.without_header:
        columns = dict(layout.columns)
    found = {"pool": place.as_posix(), "encoding": layout.encoding, "columns": columns, "labels": dict(labels)}
    return {key: value for key, value in found.items() if value} | ({} if layout.quotes else {"quotes": False})


def flow(value: Any) -> str:
    """A value as YAML in one line. Texts are quoted, so that none of them is a number or a mark."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
