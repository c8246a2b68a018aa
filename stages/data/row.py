"""A row of a file, in whatever format."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """A row of a file of texts.

    line: the line where it ends, from 1. raw: its text. values: by key or column. problem: the reason why it has none,
    empty for a good row. of_table: whether the values are cells of a CSV, TSV or Excel table, which writes a missing
    value as a word.
    """

    line: int
    raw: str
    values: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    of_table: bool = False

    def require_values(self) -> dict[str, Any]:
        """The values. Raises ValueError with the problem if there are none."""
        if self.problem:
            raise ValueError(self.problem)
        return self.values
