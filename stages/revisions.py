"""Files of a commit or an experiment, from git, DVC's cache or a remote, and those of a folder with a checkout."""

import atexit
import csv
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dvc.api
from dvc.exceptions import DvcException
from dvc.scm import map_scm_exception
from dvc_data.index.index import DataIndexError
from ruamel.yaml import YAML

from stages.errors import UserError
from stages.text.example import Example

UNREADABLE = (DvcException, DataIndexError, OSError)


@dataclass(frozen=True)
class Revision:
    """A commit or an experiment, or a folder with a checkout, as it is there.

    Attributes:
        name: what git calls it, or the path of the folder.
        advice: what to do if a file of it can't be read.
    """

    name: str
    advice: str

    def __str__(self) -> str:
        return self.name

    @cached_property
    def files(self) -> Any:
        files = dvc.api.DVCFileSystem(rev=self.name)
        atexit.register(files.close)  # its git processes end before the interpreter takes itself apart, not meanwhile
        return files

    def text(self, path: Path) -> str:
        """The content of a file. Raises UserError if neither git nor DVC's cache nor a remote holds it."""
        folder = Path(self.name)
        try:
            with map_scm_exception():  # of a repository without commits
                content = (folder / path).read_bytes() if folder.is_dir() else self.files.read_bytes(path.as_posix())
        except UNREADABLE as error:
            raise UserError(f"{path} of {self} can't be read ({error}): {self.advice}") from None
        return content.decode("utf-8")

    def json(self, path: Path) -> dict[str, Any]:
        return json.loads(self.text(path))

    def yaml(self, path: Path) -> dict[str, Any]:
        return YAML(typ="safe", pure=True).load(self.text(path))

    def examples(self, path: Path) -> list[Example]:
        """The rows of a file that stage prepare wrote."""
        return [Example(**json.loads(line)) for line in self.text(path).split("\n") if line]

    def table(self, path: Path) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.text(path), newline="")))
