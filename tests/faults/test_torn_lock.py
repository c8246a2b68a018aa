"""A real `dvc repro` killed while it rewrites its own files: nothing that it had recorded runs again, and all results
are those of a run that nothing disturbed."""

import os
import random
import re
import sys
from pathlib import Path

import pytest
import yaml

from stages import params
from tests.faults.project import STAGES, copied
from tests.faults.torn import tear
from tests.pipeline.project import STAND_IN, copy_project, run

pytestmark = pytest.mark.faults
TEARS = int(os.environ.get("TEARS", os.environ.get("KILLS", "20")))
# What reruns under another seed of the split, as DVC runs it.
ORDER = [stage for stage in STAGES if stage not in ("fetch", "benchmark")]
COMMANDS = {"dvc repro": ["dvc", "repro"], "make repro": ["python", "-m", "stages.repro"]}
OUTPUTS = ("data/processed", "data/predictions", "models", "metrics")


def ran(printed: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", printed)


def outputs(folder: Path) -> dict[str, bytes]:
    files = [file for name in OUTPUTS for file in (folder / name).rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def reseed(folder: Path) -> None:
    raw = params.read_yaml(folder / "params.yaml")
    raw["prepare"]["seed"] += 1
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """A project of stand-ins, reproduced; and the outputs, the order of the stages and the lock under another seed."""
    folder = copy_project(tmp_path_factory.mktemp("torn"))
    keep = "from stages.command import keep_lock\nkeep_lock()  # as each stage does at its start\n"
    (folder / "stand_in.py").write_text(keep + STAND_IN)
    text = (folder / "dvc.yaml").read_text(encoding="utf-8")
    (folder / "dvc.yaml").write_text(re.sub(r"python -m stages\.(\w+)", r"python stand_in.py \1", text))
    run(folder, "dvc", "repro")
    other = copied(folder, tmp_path_factory.mktemp("other"))
    reseed(other)
    assert ran(run(other, "dvc", "repro")) == ORDER
    return folder, outputs(other), (other / "dvc.lock").read_bytes()


def places() -> list[tuple[str, int, int]]:
    """Command, which rewriting of dvc.lock, and the byte: none, the size of Python's buffer, any."""
    rng = random.Random(0)
    commands = list(COMMANDS)
    found = []
    for number in range(TEARS):
        turn, place = divmod(number, len(ORDER))
        length = [0, 8192, rng.randrange(10_000), rng.randrange(10_000)][turn % 4]
        found.append((commands[(turn + place) % 2], place + 1, length))
    return found


@pytest.mark.parametrize(("command", "rewriting", "length"), places())
def test_a_lock_torn_by_a_kill_is_whole_again_and_nothing_recorded_reruns(
    reproduced, tmp_path, counts, command, rewriting, length
):
    source, expected, lock = reproduced
    folder = copied(source, tmp_path)
    reseed(folder)
    tear(folder, *COMMANDS[command], name="/dvc.lock", opening=rewriting, length=length)
    assert len((folder / "dvc.lock").read_bytes()) == length
    printed = run(folder, "python", "-m", "stages.repro")
    assert "torn by a kill" in printed
    assert not set(ran(printed)) & set(ORDER[: rewriting - 1]), printed
    assert outputs(folder) == expected
    assert (folder / "dvc.lock").read_bytes() == lock
    assert "up to date" in run(folder, "dvc", "repro")
    counts["torn locks repaired"] += 1


def test_a_stage_before_one_that_comes_from_the_run_cache_does_not_rerun(reproduced, tmp_path, counts):
    """No stage starts between the two records, so `make repro` has to make the copy itself."""
    source, expected, lock = reproduced
    folder = copied(source, tmp_path)
    before = (folder / "params.yaml").read_bytes()
    reseed(folder)
    after = (folder / "params.yaml").read_bytes()
    run(folder, "dvc", "repro")
    (folder / "params.yaml").write_bytes(before)
    first = ran(run(folder, "dvc", "repro"))
    assert first == ["prepare", "select", "evaluate", "folds", "report"]  # the others come from the run cache
    (folder / "params.yaml").write_bytes(after)
    tear(folder, *COMMANDS["make repro"], name="/dvc.lock", opening=2, length=0)
    assert ran(run(folder, *COMMANDS["make repro"])) == ["select", "evaluate", "folds", "report"]
    assert outputs(folder) == expected
    assert (folder / "dvc.lock").read_bytes() == lock
    counts["torn locks repaired"] += 1


@pytest.mark.parametrize("length", [0, 1, 20])
def test_a_torn_file_of_dvcs_process_locks_is_repaired(reproduced, tmp_path, counts, length):
    source, expected, _ = reproduced
    folder = copied(source, tmp_path)
    reseed(folder)
    tear(folder, "dvc", "repro", name="/rwlock", opening=2, length=length)
    run(folder, "python", "-m", "stages.repro")
    assert outputs(folder) == expected
    counts["torn locks repaired"] += 1


def test_the_command_runs_without_the_environment_activated(reproduced, tmp_path):
    """And passes on the arguments and the status of `dvc repro`."""
    source, expected, _ = reproduced
    folder = copied(source, tmp_path)
    reseed(folder)
    bare = ["env", "PATH=/usr/bin:/bin", sys.executable, "-m", "stages.repro"]
    assert ran(run(folder, *bare, "--single-item", "prepare")) == ["prepare"]
    run(folder, *bare)
    assert outputs(folder) == expected
    with pytest.raises(AssertionError, match="no-such-stage"):
        run(folder, *bare, "no-such-stage")
