"""DVC's experiments: those there are, and whether queued ones would have all that they need."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.errors import UserError
from stages.params import Params


def list_experiments() -> list[dict[str, Any]]:
    """The output of `dvc exp show --json`: the workspace, then the commit with its experiments."""
    shown = subprocess.run(["dvc", "exp", "show", "--json"], capture_output=True, text=True)
    if shown.returncode:
        raise UserError(f"`dvc exp show` failed: {shown.stderr.strip()}")
    return json.loads(shown.stdout)


def present_params(listed: list[dict[str, Any]]) -> dict[str, Any]:
    """The params of the workspace, from what `list_experiments` returns."""
    return listed[0]["data"]["params"]["params.yaml"]["data"]


def require_queue(chosen: Params) -> None:
    """Raises UserError if queued experiments would hang or lack raw data. DVC reports neither before they run."""
    folder = Path.cwd()
    strange = "".join(sorted({character for character in str(folder) if not character.isascii() or character in "%#?"}))
    if strange:
        raise UserError(
            f"{folder}: DVC's queue fails or hangs in a folder whose path holds {strange} (not ASCII, or %, #, ?): "
            "move the project, or run `dvc exp run -S train.seed=1` and so on, one after another"
        )
    unknown = [path for path in raw_files(chosen) if not is_known(path)]
    if unknown:
        files = " ".join(map(shlex.quote, unknown))
        pointers = " ".join(shlex.quote(f"{path}.dvc") for path in unknown)
        raise UserError(
            f"{', '.join(unknown)}: neither git nor DVC knows of it, so experiments of the queue, which run in "
            f"folders of their own, would not have it: run `dvc add {files} && git add {pointers}`"
        )


def raw_files(chosen: Params) -> Iterator[str]:
    """The paths of the data set, of its manifest and of the further sets that lie in data/raw."""
    dataset = chosen.dataset
    paths = [*dataset.pools, dataset.dialogues, dataset.train, dataset.valid, dataset.test, chosen.prepare.manifest]
    for path in filter(None, [*paths, *chosen.evaluate.further.values()]):
        if Path(path).parts[:2] == ("data", "raw"):
            yield Path(path).as_posix()


def is_known(path: str) -> bool:
    """Whether git tracks the file, the whole folder, or a .dvc file of the path or of a folder above it."""
    above = [Path(path), *Path(path).parents][:-2]  # down to data/raw
    if any(tracked(f"{folder}.dvc") for folder in above):
        return True
    if not Path(path).is_dir():
        return tracked(path)
    files = [file.as_posix() for file in Path(path).rglob("*") if file.is_file()]
    return bool(files) and all(is_known(file) for file in files)


def tracked(path: str) -> bool:
    command = ["git", "ls-files", "--error-unmatch", "--", path]
    return subprocess.run(command, capture_output=True).returncode == 0
