"""Repairs dvc.lock after a kill.

DVC rewrites dvc.lock in place when a stage has ended. A kill at that moment leaves only the start of the new file,
often nothing. DVC accepts about two thirds of such starts, and silently reruns the stages that they lack. The repair
puts the last whole file back: runs/dvc.lock, copied at the start of each stage and by `python -m stages.repro`.

How a torn file is recognised: DVC writes the stages one after another, each with cmd, deps, params, outs in this order.
So the start of a file lacks stages that the last whole one had, or its last stage lacks outs that dvc.yaml names for
it, or the last line is cut. A file that a commit or an experiment holds is whole, whatever it lacks. Other branches
and `dvc exp apply` bring such files.
"""

import contextlib
import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml
import zc.lockfile

from stages.paths import LOCK, LOCK_COPY

PIPELINE = Path("dvc.yaml")
TORN = LOCK_COPY.with_name("dvc.lock.torn")  # where a torn file is moved
DVC_LOCK = Path(".dvc/tmp/lock")  # held by DVC while it writes
RWLOCK = Path(".dvc/tmp/rwlock")  # what each DVC process reads and writes; also rewritten in place
RWLOCK_GUARD = Path(".dvc/tmp/rwlock.lock")
CONFLICT = b"<<<<<<< "
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def repair() -> str | None:
    """Replaces a torn dvc.lock by the last whole one, and removes a torn .dvc/tmp/rwlock.

    Returns a sentence about what was done, or None. Does nothing while DVC runs.
    """
    with contextlib.ExitStack() as stack:
        DVC_LOCK.parent.mkdir(parents=True, exist_ok=True)
        try:
            for file in (DVC_LOCK, RWLOCK_GUARD):
                stack.callback(zc.lockfile.LockFile(str(file)).close)
        except zc.lockfile.LockError:
            return None
        return " ".join(filter(None, (repair_lock(), repair_rwlock()))) or None


def repair_lock() -> str | None:
    text, copy, outs = read(LOCK), read(LOCK_COPY) or committed_lock(), outs_of(PIPELINE)
    if text is None or outs is None:
        return None
    if not is_torn(text, copy, outs) or (parse(text) and is_committed(text)):
        if text != copy:
            write(LOCK_COPY, text)
        return None
    write(TORN, text)
    if copy is None:
        LOCK.unlink()
        return f"{LOCK} was torn by a kill and there is no earlier one: all stages run. The torn file is {TORN}."
    write(LOCK, copy)
    return f"{LOCK} was torn by a kill; the last whole one replaces it, and the torn one is {TORN}."


def repair_rwlock() -> str | None:
    """Removes a torn .dvc/tmp/rwlock, and removes entries of ended processes from a whole one.

    DVC drops a process that does not exist, but not a zombie. A killed DVC stays a zombie if its new parent does not
    wait for it, like the first process of many containers. Every later run would end with "is busy".
    """
    try:
        held = json.loads(RWLOCK.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        RWLOCK.unlink()
        return f"{RWLOCK} was torn by a kill and is removed."
    left = without_gone(held)
    if left != held:
        write(RWLOCK, json.dumps(left).encode())
    return None


def without_gone(held: dict[str, dict]) -> dict[str, dict]:
    """A rwlock without the holders that have ended.

    held: {"read": {path: [holder, ...]}, "write": {path: holder}}, as DVC writes it. A holder has the key pid.
    """
    read = held.get("read", {}).items()
    left = {path: [holder for holder in holders if not is_gone(holder["pid"])] for path, holders in read}
    return {
        "read": {path: holders for path, holders in left.items() if holders},
        "write": {path: holder for path, holder in held.get("write", {}).items() if not is_gone(holder["pid"])},
    }


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def keep() -> None:
    """Copies dvc.lock to runs/dvc.lock unless it is torn, is just being written, or the disk is full."""
    text, copy, outs = read(LOCK), read(LOCK_COPY), outs_of(PIPELINE)
    if text is not None and outs is not None and text != copy and not is_torn(text, copy, outs):
        with contextlib.suppress(OSError):
            write(LOCK_COPY, text)


def is_torn(text: bytes, copy: bytes | None, outs: dict[str, set[str]]) -> bool:
    """Whether `text` is only the start of a dvc.lock.

    Args:
        text: bytes of dvc.lock.
        copy: bytes of the last dvc.lock that was whole, or None.
        outs: paths of each stage's outputs in dvc.yaml.
    """
    if text == copy or text.startswith(CONFLICT) or b"\n" + CONFLICT in text:  # the user has to resolve git's conflict
        return False
    if (copy or b"").startswith(text) or not text.endswith(b"\n"):
        return True
    stages = parse(text)
    if not stages:
        return True
    if (parse(copy or b"") or {}).keys() & outs.keys() - stages.keys():
        return True
    name, last = list(stages.items())[-1]
    written = last.get("outs") or []
    lacking = outs.get(name, set()) - {out.get("path") for out in written}
    return bool(lacking) or not all(map(is_whole_out, written[-1:]))


def is_whole_out(out: dict[str, Any]) -> bool:
    """Whether an entry of `outs` has all keys that DVC writes."""
    return {"path", "hash", "md5", "size"} <= out.keys() and ("nfiles" in out or not str(out["md5"]).endswith(".dir"))


@functools.lru_cache(maxsize=2)
def parse(text: bytes) -> dict[str, dict[str, Any]] | None:
    """The stages of a dvc.lock, None if the text is none."""
    try:
        raw = yaml.load(text.decode("utf-8"), Loader=YAML)
        stages = raw["stages"]
        outs = [out for stage in stages.values() for out in stage.get("outs") or []]
        valid = raw["schema"] == "2.0" and all("cmd" in stage for stage in stages.values())
        valid = valid and all(isinstance(out, dict) for out in outs)
    except (ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        return None
    return stages if valid else None


def outs_of(pipeline: Path) -> dict[str, set[str]] | None:
    """Paths of each stage's outputs in dvc.yaml (outs, metrics, plots), except those with a variable.

    None if dvc.yaml can't be read. DVC reports the reason.
    """
    try:
        raw = yaml.load(pipeline.read_text(encoding="utf-8"), Loader=YAML)
        return {name: set(paths_of(stage)) for name, stage in raw["stages"].items()}
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        return None


def paths_of(stage: dict[str, Any]) -> Iterator[str]:
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind) or []:
            path = out if isinstance(out, str) else next(iter(out))
            if "${" not in path:
                yield path


def committed_lock() -> bytes | None:
    """dvc.lock in git's last commit."""
    shown = git("show", f"HEAD:./{LOCK}")
    return shown or None


def is_committed(text: bytes) -> bool:
    """Whether a commit or an experiment holds exactly this dvc.lock. (Queued experiments may hold a torn one.)"""
    blob = git("hash-object", "--stdin", input=text).decode().strip()
    experiments = ["--exclude=refs/exps/stash", "--exclude=refs/exps/celery/*", "--glob=refs/exps"]
    where = ["HEAD", "--branches", "--tags", "--remotes", *experiments, "--", str(LOCK)]
    return bool(git("log", "-1", "--format=%H", f"--find-object={blob}", *where))


def git(*arguments: str, input: bytes = b"") -> bytes:
    """The output of a git command. It is empty if the command fails."""
    try:
        return subprocess.run(["git", *arguments], input=input, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""


def read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write(path: Path, content: bytes) -> None:
    """Replaces the file in one step, after its content is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
