"""Files of a commit or an experiment: from git, from DVC's cache, or from a remote."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dvc.api
from dvc.exceptions import DvcException

from stages.errors import UserError
from stages.text.example import Example


@dataclass(frozen=True)
class Revision:
    """A commit or an experiment, or the workspace.

    Attributes:
        name: what git calls it; empty for the workspace.
        advice: what to do if a file of it can't be read.
    """

    name: str
    advice: str

    def __str__(self) -> str:
        return self.name or "the workspace"

    @cached_property
    def files(self) -> Any:
        return dvc.api.DVCFileSystem(rev=self.name or None)

    def text(self, path: Path) -> str:
        """The content of a file. Raises UserError if neither git nor DVC's cache nor a remote holds it."""
        try:
            return self.files.read_bytes(path.as_posix()).decode("utf-8")
        except (DvcException, OSError) as error:
            raise UserError(f"{path} of {self} can't be read ({error}): {self.advice}") from None

    def has(self, path: Path) -> bool:
        try:
            return self.files.exists(path.as_posix())
        except (DvcException, OSError) as error:
            raise UserError(f"{self} can't be read ({error}): {self.advice}") from None

    def json(self, path: Path) -> dict[str, Any]:
        return json.loads(self.text(path))

    def examples(self, path: Path) -> list[Example]:
        """The rows of a file that stage prepare wrote."""
        return [Example(**json.loads(line)) for line in self.text(path).split("\n") if line]

    def table(self, path: Path) -> list[dict[str, str]]:
        return list(csv.DictReader(self.text(path).splitlines()))
