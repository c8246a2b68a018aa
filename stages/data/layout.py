"""Where the rows of a file have their text, label, group, category and time, and how the labels are written."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ROLES = {"text": "input", "label": "label", "group": "group", "category": "category", "time": ""}  # and default names
SIDES = {"fraud": True, "legitimate": False}
WHOLE = re.compile(r"([+-]?\d+)\.0+")


@dataclass(frozen=True)
class Layout:
    """How a file is read.

    columns: the name of the column of each role in ROLES. A role without one has its default name, unless that is the
    column of another role. Numbers, from 1, are for a table without a header. labels: whether a word, folded, means
    fraud; empty for true, false, 1 and 0. encoding: a codec of Python; empty for UTF-8. quotes: whether " is one.
    """

    columns: Mapping[str, str | int] = field(default_factory=dict)
    labels: Mapping[str, bool] = field(default_factory=dict)
    encoding: str = ""
    quotes: bool = True

    def name(self, role: str) -> str:
        """The key of a role in the values of a row; empty if it has none."""
        if role in self.columns:
            return str(self.columns[role])
        default = ROLES[role]
        return "" if self.without_header or default in self.columns.values() else default

    @property
    def without_header(self) -> bool:
        """Whether columns are numbers."""
        return any(isinstance(column, int) for column in self.columns.values())

    @property
    def required(self) -> list[str]:
        """Columns that a table must have: those of text and label, and all that are named."""
        return list(dict.fromkeys([self.name("text"), self.name("label"), *map(str, self.columns.values())]))

    def found_in(self, columns: Sequence[str]) -> bool:
        """Whether columns hold each required one, and none of the layout twice."""
        roles = filter(None, map(self.name, ROLES))
        return all(columns.count(name) == 1 for name in self.required) and all(
            columns.count(name) < 2 for name in roles
        )

    @property
    def codec(self) -> str:
        """The encoding, as messages name it."""
        return self.encoding or "UTF-8"


def label_words(labels: Mapping[str, Any]) -> dict[str, bool]:
    """Whether a word means fraud, by the folded word. labels: lists of words, by a key of SIDES."""
    return {fold_word(word): SIDES[side] for side, words in labels.items() for word in words}


def fold_word(value: Any) -> str:
    """A label as it is compared: 1, 1.0 and "1" are the same, and so are true and "TRUE"."""
    word = str(value).strip().casefold()
    whole = WHOLE.fullmatch(word)
    return whole[1] if whole else word


def column_problems(columns: Mapping[Any, Any]) -> list[str]:
    """What is wrong with the key `columns` of an entry of `datasets`."""
    problems = [
        f"columns.{role}: unknown; expected some of {', '.join(ROLES)}" for role in columns if role not in ROLES
    ]
    named = list(columns.values())
    of_names = all(isinstance(name, str) and name.strip() for name in named)
    of_numbers = all(type(name) is int and name > 0 for name in named)
    if not (of_names or of_numbers):
        problems.append(
            f"columns: found {named}; expected names of the header, or numbers from 1 for a table without a header"
        )
    if of_numbers and named and not {"text", "label"} <= columns.keys():
        problems.append("columns: a table without a header needs the numbers of both text and label")
    if len(set(map(str, named))) < len(named):
        problems.append(f"columns: found {named}; expected each column once")
    return problems


def label_problems(labels: Mapping[Any, Any]) -> list[str]:
    """What is wrong with the key `labels` of an entry of `datasets`."""
    expected = "expected lists of words, as in {fraud: [spam, 是, 1], legitimate: [ham, 否, 0]}"
    if labels and (
        set(labels) != set(SIDES) or not all(isinstance(words, list) and words for words in labels.values())
    ):
        return [f"labels: found {dict(labels)}; {expected}"]
    if any(not isinstance(word, str | int | float) for words in labels.values() for word in words):
        return [f"labels: found {dict(labels)}; {expected}"]
    both = set(map(fold_word, labels.get("fraud", []))) & set(map(fold_word, labels.get("legitimate", [])))
    return [f"labels: {word!r} means both fraud and legitimate; remove one" for word in sorted(both)]


def encoding_problems(encoding: str) -> list[str]:
    """What is wrong with the key `encoding` of an entry of `datasets`."""
    try:
        "".encode(encoding or "utf-8")
    except (LookupError, ValueError):
        return [f"encoding: found {encoding!r}; expected a text encoding, such as utf-8, gb18030, cp1252 or utf-16"]
    return []
