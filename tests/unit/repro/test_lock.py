"""dvc.lock torn at any byte is known and repaired; one that is whole is let be."""

import copy
import json
import os
import subprocess
import time

import psutil
import pytest
import yaml
import zc.lockfile
from dvc.utils.serialize import dumps_yaml

from stages.command import keep_lock
from stages.paths import LOCK, LOCK_COPY
from stages.repro.lock import RWLOCK, TORN, is_torn, keep, outs_of, repair
from tests.conftest import ROOT
from tests.pipeline.project import commit, git

OUTS = outs_of(ROOT / "dvc.yaml")
COMMITTED = (ROOT / "dvc.lock").read_bytes()
SMALL_PIPELINE = {
    "stages": {
        "one": {"cmd": "run one", "deps": ["in"], "outs": ["a", {"b": {"cache": False}}]},
        "two": {"cmd": "run two", "deps": ["a"], "outs": ["c"], "metrics": [{"d.json": {"cache": False}}]},
    }
}


def entry(path: str, digest: str) -> dict:
    return {"path": path, "hash": "md5", "md5": digest * 8, "size": 12}


def small(one: str, two: str | None) -> bytes:
    """A dvc.lock of two stages as DVC writes it; a digit stands for what they were run on."""
    stages = {"one": {"cmd": "run one", "deps": [entry("in", one)], "outs": [entry("a", one), entry("b", one)]}}
    if two is not None:
        outs = [entry("c", two) | {"md5": two * 8 + ".dir", "nfiles": 3}, entry("d.json", two)]
        stages["two"] = {"cmd": "run two", "deps": [entry("a", two)], "outs": outs}
    return dumps_yaml({"schema": "2.0", "stages": stages}).encode()


def rewritten(before: bytes, stage: str, appended: bool = False) -> tuple[bytes, bytes]:
    """A dvc.lock before and after `stage` ran on something else; appended: it had not run before."""
    data = yaml.safe_load(before)
    entry = data["stages"].pop(stage) if appended else data["stages"][stage]
    first, entry = copy.deepcopy(data), copy.deepcopy(entry)
    for part in [*entry["deps"], *entry["outs"]]:
        part["md5"] = part["md5"][::-1] if not part["md5"].endswith(".dir") else part["md5"][:-4][::-1] + ".dir"
    data["stages"][stage] = entry
    return dumps_yaml(first).encode(), dumps_yaml(data).encode()


@pytest.mark.parametrize(
    ("stage", "appended"),
    [
        ("prepare", False),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (("train", False), ("evaluate", False), ("prepare", True))
        ),
        ("evaluate", True),
    ],
)
def test_the_lock_of_this_project_torn_at_any_byte_is_known(stage, appended):
    before, after = rewritten(COMMITTED, stage, appended)
    assert not is_torn(before, before, OUTS)
    assert not is_torn(after, before, OUTS)
    assert not is_torn(after, None, OUTS)
    for length in range(len(after)):
        torn = after[:length]
        assert is_torn(torn, before, OUTS) or torn == before, length


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(SMALL_PIPELINE, sort_keys=False))
    (tmp_path / ".gitignore").write_text("/runs/\n/.dvc/\n")
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("before", "after"), [("1 1", "2 1"), ("1 1", "1 2"), ("1 -", "1 1"), ("1 -", "2 -")])
def test_a_lock_torn_at_any_byte_is_replaced_by_the_last_whole_one(project, before, after):
    before, after = (
        small(*(None if digit == "-" else digit for digit in digits.split())) for digits in (before, after)
    )
    LOCK.write_bytes(before)
    assert repair() is None
    outs = outs_of(project / "dvc.yaml")
    for length in range(len(after)):
        assert is_torn(after[:length], before, outs) or after[:length] == before
        if length % 9 and after[length - 1 : length] != b"\n":
            continue
        LOCK.write_bytes(after[:length])
        done = repair()
        assert LOCK.read_bytes() == before, length
        if after[:length] != before:
            assert "the last whole one replaces it" in done
            assert TORN.read_bytes() == after[:length]
    LOCK.write_bytes(after)
    assert repair() is None
    assert LOCK.read_bytes() == LOCK_COPY.read_bytes() == after


def test_without_a_copy_the_lock_of_the_last_commit_counts(project):
    LOCK.write_bytes(small("1", "1"))
    commit(project)
    LOCK.write_bytes(b"")
    assert "the last whole one replaces it" in repair()
    assert LOCK.read_bytes() == small("1", "1")


def test_without_any_earlier_lock_the_torn_one_is_put_aside(project):
    LOCK.write_bytes(small("1", "1")[:-300])
    assert "all stages run" in repair()
    assert not LOCK.exists()
    assert repair() is None


def test_locks_that_other_commands_write_are_whole(project):
    """A branch without the second stage, `dvc exp apply`, `dvc commit`, a stage removed, a conflict of git."""
    LOCK.write_bytes(small("1", "1"))
    assert repair() is None
    LOCK.write_bytes(small("1", None))
    commit(project)
    git(project, "branch", "one-stage")
    for text in (small("1", None), small("3", "3")):  # the commit's, a start of the copy; that of `dvc commit`
        LOCK.write_bytes(text)
        assert repair() is None
        assert LOCK.read_bytes() == text
    commit(project)
    LOCK.write_bytes(small("1", None))  # git checkout one-stage -- dvc.lock
    assert repair() is None
    conflict = b"<<<<<<< HEAD\n" + small("1", "1") + b"=======\n" + small("2", "1") + b">>>>>>> other\n"
    LOCK.write_bytes(conflict)
    assert repair() is None
    assert LOCK.read_bytes() == conflict
    LOCK.write_bytes(small("3", "3"))
    assert repair() is None
    pipeline = {"stages": {"one": SMALL_PIPELINE["stages"]["one"]}}
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    LOCK.write_bytes(small("4", None))
    assert repair() is None


def test_the_lock_of_an_experiment_is_whole(project):
    LOCK.write_bytes(small("1", "1"))
    commit(project)
    LOCK.write_bytes(small("1", None))
    commit(project)
    git(project, "update-ref", "refs/exps/ab/cd/some-name", "HEAD")
    git(project, "reset", "--quiet", "--hard", "HEAD~1")
    assert repair() is None
    LOCK.write_bytes(small("1", None))
    assert repair() is None
    assert LOCK.read_bytes() == small("1", None)


def test_a_torn_lock_in_a_stash_is_no_proof_that_it_is_whole(project):
    LOCK.write_bytes(small("1", "1"))
    commit(project)
    LOCK.write_bytes(small("1", None))
    git(project, "-c", "user.name=t", "-c", "user.email=t@localhost", "stash")
    git(project, "update-ref", "refs/exps/stash", "refs/stash")
    assert repair() is None
    LOCK.write_bytes(small("1", None))
    assert "the last whole one replaces it" in repair()


def test_a_torn_lock_that_somebody_committed_is_repaired(project):
    LOCK.write_bytes(small("1", "1"))
    assert repair() is None
    LOCK.write_bytes(b"")
    commit(project)
    assert "the last whole one replaces it" in repair()
    assert LOCK.read_bytes() == small("1", "1")


@pytest.mark.parametrize("pipeline", [None, b"", b"stages: [", b"stages:\n  one:\n    outs: 3\n", b"\xff"])
def test_no_lock_is_called_torn_where_dvc_yaml_can_not_be_read(project, pipeline):
    LOCK.write_bytes(small("1", "1"))
    assert repair() is None
    (project / "dvc.yaml").unlink()
    if pipeline is not None:
        (project / "dvc.yaml").write_bytes(pipeline)
    LOCK.write_bytes(b"")
    assert repair() is None
    keep()
    assert LOCK.read_bytes() == b""
    assert LOCK_COPY.read_bytes() == small("1", "1")


@pytest.mark.parametrize("outs", ["[a, b]", "{path: a}", "3", "'path'", "[[path]]"])
def test_outs_that_dvc_never_writes_are_no_whole_lock(outs):
    text = f"schema: '2.0'\nstages:\n  one:\n    cmd: x\n    outs: {outs}\n"
    assert is_torn(text.encode(), None, {"one": {"a"}})


def test_no_lock_is_called_torn_while_dvc_is_running(project):
    LOCK.write_bytes(small("1", "1"))
    assert repair() is None
    LOCK.write_bytes(b"")
    held = zc.lockfile.LockFile(".dvc/tmp/lock")
    assert repair() is None
    assert LOCK.read_bytes() == b""
    held.close()
    assert "the last whole one replaces it" in repair()


def test_a_lock_that_is_being_written_is_not_kept(project):
    LOCK.write_bytes(small("1", "1"))
    keep()
    for length in range(0, len(small("2", "2")), 7):
        LOCK.write_bytes(small("2", "2")[:length])
        keep()
        assert LOCK_COPY.read_bytes() == small("1", "1")
    LOCK.write_bytes(small("2", "2"))
    keep()
    assert LOCK_COPY.read_bytes() == small("2", "2")


@pytest.mark.parametrize("left", [b"", b'{"write": {}, "read": {"/a": [{"pid": 1, "c', b"\0\0"])
def test_a_torn_file_of_dvcs_process_locks_is_removed(project, left):
    RWLOCK.write_bytes(left)
    assert "removed" in repair()
    assert not RWLOCK.exists()
    RWLOCK.write_bytes(json.dumps({"write": {}, "read": {}}).encode())
    assert repair() is None
    assert RWLOCK.exists()


def test_a_stage_keeps_the_lock_only_when_dvc_runs_it(project, monkeypatch):
    LOCK.write_bytes(small("1", "1"))
    keep_lock()
    assert not LOCK_COPY.exists()
    monkeypatch.setenv("DVC_STAGE", "one")
    keep_lock()
    assert LOCK_COPY.read_bytes() == small("1", "1")
    LOCK.unlink()
    keep_lock()
    assert not LOCK_COPY.exists()
    assert os.listdir("runs") == []


def test_locks_of_a_killed_dvc_are_released(project):
    """A zombie exists, so DVC takes it for a process at work: "is busy"."""
    zombie = subprocess.Popen(["true"])
    while psutil.Process(zombie.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    holders = {number: {"pid": number, "cmd": "dvc"} for number in (zombie.pid, os.getpid())}
    held = {"read": {"a": list(holders.values()), "b": [holders[zombie.pid]]}, "write": {"c": holders[zombie.pid]}}
    RWLOCK.parent.mkdir(parents=True, exist_ok=True)
    RWLOCK.write_text(json.dumps(held))
    assert repair() is None
    assert json.loads(RWLOCK.read_text()) == {"read": {"a": [holders[os.getpid()]]}, "write": {}}
    zombie.wait()
