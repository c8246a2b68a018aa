"""A manifest: a file that records the split and the fold of each row of a pool, so that they stay when rows change.

It holds hashes of texts and groups, no text. The hash of a short text can be guessed, so a manifest is as private as
its pool.
"""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.artifacts import write_csv
from stages.data.lines import DataError
from stages.data.speakers import remove_speakers
from stages.out_of_fold import FIFTHS
from stages.prepare.similar import normalize
from stages.text.example import Example

COLUMNS = ["text", "group", "split", "fold"]
SPLITS = ("train", "valid", "test")
HEX_DIGITS = 32
Key = tuple[str, str]  # hashes of text and group


@dataclass(frozen=True)
class Recorded:
    """A row of a manifest. split: a number of SPLITS. fold: from 0, or -1 if the pool was too small for folds."""

    key: Key
    split: int
    fold: int


def key_of(example: Example) -> Key:
    """Text and group as a manifest names them. Names of speakers and layout are no part of a text."""
    return digest(normalize(remove_speakers(example.input))), digest(example.group) if example.group else ""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:HEX_DIGITS]


def read_manifest(path: Path) -> list[Recorded]:
    """Reads a manifest. Raises DataError if it is missing, or a row is not as `write_manifest` wrote it."""
    advice = "write it with `python -m stages.split --write`, or set prepare.manifest to null"
    if not path.is_file():
        raise DataError(f"{path}, which prepare.manifest names, is missing: {advice}")
    rows = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != COLUMNS:
                raise DataError(f"{path}: found the header {reader.fieldnames}; expected {','.join(COLUMNS)}: {advice}")
            for row in reader:
                rows.append(recorded(row, f"{path}:{reader.line_num}", advice))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}; expected a manifest in UTF-8: {advice}") from None
    return rows


def recorded(row: Mapping[str, str | None], where: str, advice: str) -> Recorded:
    """The row of a manifest. Raises DataError if it is none.

    Args:
        row: texts by column.
        where: file and line, for the message.
        advice: what to do, for the message.
    """
    text, group, split, fold = (row.get(column) for column in COLUMNS)
    if not text or group is None or split not in SPLITS or fold not in {str(fold) for fold in range(-1, FIFTHS)}:
        raise DataError(
            f"{where}: found {dict(row)}; expected two hashes, one of {', '.join(SPLITS)}, and a fold from -1 to "
            f"{FIFTHS - 1}: {advice}"
        )
    return Recorded((text, group), SPLITS.index(split), int(fold))


def write_manifest(path: Path, splits: Mapping[str, list[Example]], old: Sequence[Recorded]) -> None:
    """Records the rows of the splits, sorted, so that the order of a pool changes no byte.

    Rows of the old manifest that are gone are kept: if they return, they return to their split.
    """
    new = [Recorded(key_of(e), SPLITS.index(name), e.fold) for name, rows in splits.items() for e in rows]
    here = {row.key for row in new}
    rows = [*new, *(row for row in old if row.key not in here)]
    write_csv(
        path,
        (
            {"text": row.key[0], "group": row.key[1], "split": SPLITS[row.split], "fold": row.fold}
            for row in sorted(rows, key=lambda row: (row.key, row.split, row.fold))
        ),
        COLUMNS,
    )


def recorded_parts(
    manifest: Sequence[Recorded], keys: Sequence[Key], units: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Split and fold of each unit as recorded, both int of shape (n_units,), and -1 for new units.

    A unit is known by the text or the group of any of its rows. If rows of two splits are joined, the unit goes to the
    first of train, valid, test that holds one of them: a text that a model may have learned from is never tested. Its
    fold is the one of most of its rows, the lowest if there are several.

    Args:
        manifest: the recorded rows.
        keys: of each row.
        units: int of shape (n_rows,), the unit of each row, from 0.
    """
    splits: dict[tuple[str, str], set[int]] = defaultdict(set)
    folds: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for row in manifest:
        for name in names_of(row.key):
            splits[name].add(row.split)
            folds[name][row.fold] += 1
    count = int(units.max()) + 1
    split_of, votes = np.full(count, -1), [Counter[int]() for _ in range(count)]
    for unit, key in zip(units.tolist(), keys, strict=True):
        for name in filter(splits.__contains__, names_of(key)):
            first = min(splits[name])
            split_of[unit] = first if split_of[unit] < 0 else min(split_of[unit], first)
            votes[unit] += folds[name]
    fold_of = [min(vote, key=lambda fold: (-vote[fold], fold), default=-1) for vote in votes]
    return split_of, np.array(fold_of)


def names_of(key: Key) -> list[tuple[str, str]]:
    """What a row is known by: its text, and its group if it has one."""
    text, group = key
    return [("text", text)] + ([("group", group)] if group else [])


def compare_with(manifest: Sequence[Recorded], splits: Mapping[str, list[Example]]) -> dict[str, int]:
    """How many rows of the pool the manifest knows, how many are new and gone, and how many changed their split."""
    before = {row.key: row.split for row in manifest}
    found = [(key_of(example), SPLITS.index(name)) for name, rows in splits.items() for example in rows]
    here = {key for key, _ in found}
    return {
        "known": sum(key in before for key, _ in found),
        "new": sum(key not in before for key, _ in found),
        "gone": sum(row.key not in here for row in manifest),
        "changed_split": sum(before.get(key, split) != split for key, split in found),
    }
