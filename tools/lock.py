"""Renews the hashes of code in dvc.lock without a run, where the code writes the same bytes as the code that ran.

python -m tools.lock [--reviewed] [--skip-same]

Only `deps` under stages/ are renewed. Anything else that changed since the run, such as data or params, needs a run.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dvc.dependency import Dependency, ParamsDependency
from dvc.fs import LocalFileSystem, MemoryFileSystem
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.utils.serialize import load_yaml
from dvc_data.hashfile.build import build
from dvc_data.hashfile.db import HashFileDB

from tools.same import CompareError, check_out, compare_revisions, git, require_root

CODE = "stages"
# `make same` runs none of it, or hardly any: data sets of dialogues, written answers, scores of `make folds`.
NOT_COMPARED = (
    "stages/benchmark/",
    "stages/data/csv_table.py",
    "stages/evaluate/generate.py",
    "stages/fetch/package.py",
    "stages/fetch/sources.py",
    "stages/folds/scores.py",
    "stages/prepare/chunks.py",
    "stages/prepare/dialogues.py",
)
LOCK = "dvc.lock"


class LockError(Exception):
    """dvc.lock can't be renewed; the message says why and what to do."""


def main() -> None:
    arguments = read_arguments()
    try:
        require_root()
        renew(arguments.skip_same, arguments.reviewed)
    except (LockError, CompareError) as error:
        sys.exit(f"error: {error}")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.lock", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--skip-same", action="store_true", help="compare nothing: only after `make same` passed for these changes"
    )
    parser.add_argument(
        "--reviewed", action="store_true", help="accept changes of files that the comparison does not run, after a look"
    )
    return parser.parse_args()


def renew(skip_same: bool, reviewed: bool = False) -> None:
    """Compares the code that dvc.lock was written by with the working tree's, then writes the latter's hashes."""
    require_no_untracked_code()
    locked = load_yaml(LOCK)["stages"]
    with Repo() as repo, repo.lock:
        stages = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]
        for stage in stages:
            require_only_code_changed(stage, locked.get(stage.name))
        if not any(changed_code(stage, locked[stage.name]) for stage in stages):
            print(f"lock: {LOCK} already holds the hashes of this code")
            return
        if skip_same:
            print("lock: WARNING: nothing was compared (--skip-same): results may be of other code than this")
        else:
            if not reviewed:
                require_compared({name for stage in stages for name in changed_code(stage, locked[stage.name])})
            require_same(commit_of(locked))
        for stage in stages:
            names = changed_code(stage, locked[stage.name])
            if names:
                write_hashes(stage)
                print(f"lock: {stage.name}: {', '.join(names)}")
    print(f"lock: {LOCK} holds the hashes of this code; commit it")


def require_compared(names: set[str]) -> None:
    """Raises LockError for changed files that the comparison does not run."""
    unrun = sorted(name for name in names if name.startswith(NOT_COMPARED))
    if unrun:
        raise LockError(
            f"the comparison does not run {', '.join(unrun)}, so it can't show that their results stay: look at the "
            "difference and pass --reviewed, or run `make repro`"
        )


def require_no_untracked_code() -> None:
    """Raises LockError where a folder holds a file that its hash would count and that a clone would lack."""
    names = git("ls-files", "--others", "--exclude-standard", CODE).decode().split()
    if names:
        raise LockError(f"git does not track {', '.join(names)}: `git add` or remove")


def require_only_code_changed(stage: PipelineStage, locked: dict | None) -> None:
    """Raises LockError where a stage has changed since its run in anything but its code.

    An output of another stage, such as models/base, may be missing, as in a fresh clone.
    """
    if locked is None:
        raise LockError(f"{LOCK} knows no run of {stage.name}: run `make repro`")
    missing = [dep.def_path for dep in code_deps(stage) if not dep.exists]
    if missing:
        raise LockError(f"dvc.yaml lists {', '.join(missing)} for {stage.name}, which is missing")
    changed = [] if stage.cmd == locked["cmd"] else ["cmd"]
    changed += sorted({out.def_path for out in stage.outs} ^ {out["path"] for out in locked.get("outs", [])})
    others = [dep for dep in stage.deps if not is_code(dep.def_path)]
    files = {dep.def_path for dep in others if not isinstance(dep, ParamsDependency)}
    changed += sorted(files ^ {dep["path"] for dep in locked.get("deps", []) if not is_code(dep["path"])})
    made = {out.fs_path for other in stage.repo.index.stages for out in other.outs}
    for dep in others:
        if isinstance(dep, ParamsDependency):
            names = locked.get("params", {}).get(dep.def_path, {}).keys()
            changed += sorted({*dep.workspace_status().get(dep.def_path, ()), *(names ^ set(dep.params))})
        elif dep.exists or not is_inside(dep.fs_path, made):
            changed += dep.workspace_status()
    if changed:
        what = ", ".join(dict.fromkeys(changed))
        raise LockError(
            f"{stage.name} has changed since its run in more than its code: {what} in dvc.yaml or in the files "
            f"is not what {LOCK} holds: run `make repro`"
        )


def is_code(path: str) -> bool:
    return path == CODE or path.startswith(f"{CODE}/")


def is_inside(path: str, folders: set[str]) -> bool:
    """Whether a path is one of the folders or files, or lies in one."""
    return any(str(parent) in folders for parent in (Path(path), *Path(path).parents))


def code_deps(stage: PipelineStage) -> Iterator[Dependency]:
    return (dep for dep in stage.deps if is_code(dep.def_path))


def changed_code(stage: PipelineStage, locked: dict) -> list[str]:
    """The code that a stage depends on now, or did when it ran, and whose hash dvc.lock does not hold, or no longer."""
    before = {dep["path"]: dep["md5"] for dep in locked.get("deps", []) if is_code(dep["path"])}
    now = {dep.def_path: dep.get_hash().value for dep in code_deps(stage)}
    return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))


def commit_of(locked: dict) -> str:
    """The newest commit with the very code whose hashes dvc.lock holds."""
    hashes = {
        (dep["path"], dep["md5"]) for stage in locked.values() for dep in stage.get("deps", []) if is_code(dep["path"])
    }
    commits = git("rev-list", "--full-history", "HEAD", "--", CODE).decode().split()
    for commit in commits:
        with tempfile.TemporaryDirectory(prefix="lock-") as name:
            check_out(commit, Path(name) / "code", CODE)
            if all(hash_of(Path(name) / "code" / path) == digest for path, digest in hashes):
                return commit
    raise LockError(f"no commit holds the code that {LOCK} was written by: run `make repro`")


def hash_of(path: Path) -> str | None:
    """DVC's hash of a file, or of a folder and all in it; None if there is none."""
    if not path.exists():
        return None
    nowhere = HashFileDB(MemoryFileSystem(), "memory://nowhere")
    _, _, built = build(nowhere, str(path), LocalFileSystem(), "md5", dry_run=True)
    return built.hash_info.value


def require_same(commit: str) -> None:
    subject = git("log", "-1", "--format=%h %s", commit).decode().strip()
    print(f"lock: {LOCK} was written by the code of {subject}", flush=True)
    with tempfile.TemporaryDirectory(prefix="same-") as name:
        rows = compare_revisions(commit, None, Path(name))
    if any(row.verdict == "differs" for row in rows):
        raise LockError("this code writes other bytes (see above): run `make repro`")


def write_hashes(stage: PipelineStage) -> None:
    """Writes a stage's entry as DVC would; all but code is as DVC read it from the lock."""
    for dep in code_deps(stage):
        dep.save()
    stage.dump(update_pipeline=False)


if __name__ == "__main__":
    main()
