"""Each stage killed at random moments and while DVC records it, then `make repro`: the same figures, the same bytes."""

import os
import random
import re
import shutil
import time

import pytest

from tests.faults.project import STAGES, copied, kill_after, results, start, tiny_project
from tests.faults.torn import tear
from tests.pipeline.project import run

pytestmark = pytest.mark.faults
KILLS = int(os.environ.get("KILLS", "12"))  # of each stage
CHECK_EVERY = 4  # kills between two full runs
REPRO = ("python", "-m", "stages.repro")  # what `make repro` runs


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, base_folder):
    """The project after a run that nothing disturbed, its results, and how long each stage takes."""
    folder = tiny_project(tmp_path_factory.mktemp("kills"), base_folder)
    seconds = {}
    for stage in STAGES:
        began = time.monotonic()
        run(folder, *REPRO, "--single-item", stage)
        seconds[stage] = time.monotonic() - began
    return folder, results(folder), seconds


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_at_any_moment_runs_to_the_same_end(uninterrupted, tmp_path, counts, stage):
    project, expected, seconds = uninterrupted
    folder = copied(project, tmp_path)
    rng = random.Random(stage)
    killed = 0
    for attempt in range(1, 4 * KILLS):
        if stage == "train" and rng.random() < 0.5:
            shutil.rmtree(
                folder / "runs/train", ignore_errors=True
            )  # from the start; otherwise from what the last kill left
        process = start(folder, *REPRO, "--single-item", "--force", stage, log=folder / "runs/log")
        killed += kill_after(process, rng.uniform(0.3, seconds[stage]))
        if killed and (killed == KILLS or attempt % CHECK_EVERY == 0):
            run(folder, *REPRO)
            assert results(folder) == expected
            assert not [file for file in folder.rglob(".writing-*") if "runs" not in file.parts]
        if killed == KILLS:
            break
    assert killed == KILLS
    counts["kills survived"] += killed


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_while_dvc_records_it_is_recorded_by_the_next_run(uninterrupted, tmp_path, counts, stage):
    project, expected, _ = uninterrupted
    folder = copied(project, tmp_path)
    length = random.Random(stage).randrange((folder / "dvc.lock").stat().st_size)
    command = ("dvc", "repro", "--single-item", "--force", stage)
    tear(folder, *command, name="/dvc.lock", opening=1, length=length)
    printed = run(folder, *REPRO)
    assert "torn by a kill" in printed
    # The report reads how long a stage took.
    assert set(re.findall(r"Running stage '(\w+)'", printed)) <= {stage, "report"}
    assert results(folder) == expected
    counts["torn locks repaired"] += 1


def test_of_two_runs_at_once_the_second_is_refused_or_waits(uninterrupted, tmp_path):
    project, expected, _ = uninterrupted
    folder = copied(project, tmp_path)
    shutil.rmtree(folder / "runs/train", ignore_errors=True)
    logs = [folder / "runs/one", folder / "runs/other"]
    first = start(folder, *REPRO, "--single-item", "--force", "train", log=logs[0])
    time.sleep(2.5)
    second = start(folder, *REPRO, "--single-item", "--force", "train", log=logs[1])
    codes = first.wait(timeout=300), second.wait(timeout=300)
    assert codes[0] == 0
    assert codes[1] == 0 or "lock" in logs[1].read_text() or "busy" in logs[1].read_text()
    run(folder, *REPRO)
    assert results(folder) == expected
