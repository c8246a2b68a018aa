"""The record of a labelled text, and the JSON Lines that stage prepare writes."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.artifacts import replacing


@dataclass(frozen=True)
class Example:
    """A text and whether it is fraud (the positive class).

    group: the case that it belongs to; rows of one case are never in two splits. category: free text. source:
    "file:line" of the row that it was read from. unit: a number that dependent rows share, those of one group or with
    similar texts. leak: how a row of valid, test or a further set appears in train (or, except for valid, in valid):
    verbatim, near, contained or case; empty if it does not. fold: the fifth of the pool that it belongs to, from 0; -1
    in splits of a user's own and in further sets.
    """

    input: str
    label: bool
    group: str = ""
    category: str = ""
    source: str = ""
    unit: int = -1
    leak: str = ""
    fold: int = -1


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    with replacing(path) as file:
        for example in examples:
            file.write(json.dumps(asdict(example), ensure_ascii=False, sort_keys=True) + "\n")


def read_examples(path: Path) -> list[Example]:
    """Reads a file of `write_examples`."""
    with path.open(encoding="utf-8", newline="\n") as file:
        return [Example(**json.loads(line)) for line in file]
