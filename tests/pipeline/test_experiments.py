"""Experiments have the user's raw data and leave them where they are."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.pipeline.project import commit, copy_project, git, run

pytestmark = pytest.mark.slow

RAW = '{"input": "text", "label": true}\n'
# One stage that reads a file of the user's; it fails where the file is missing or another.
READER = f"""
import json, pathlib
assert pathlib.Path("data/raw/mine.jsonl").read_text() == {RAW!r}
pathlib.Path("metrics/data.json").write_text(json.dumps({{"params": pathlib.Path("params.yaml").read_text()}}))
"""
KINDS = {
    "in the workspace": ["dvc exp run -S prepare.seed=7"],
    "in a folder of its own": ["dvc exp run --temp -S prepare.seed=7"],
    "in the queue": ["dvc exp run --queue -S prepare.seed=7,8", "dvc exp run --run-all"],
}
COPIED = ["dvc exp run --temp --copy-paths data/raw/mine.jsonl -S prepare.seed=7"]
ADDED = ["dvc add data/raw/mine.jsonl", "git add data/raw/mine.jsonl.dvc"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A project of the one stage, committed, with the user's file in data/raw."""
    folder = copy_project(tmp_path_factory.mktemp("reader"))
    (folder / "reader.py").write_text(READER)
    stage = {
        "cmd": "python reader.py",
        "deps": ["data/raw"],
        "params": ["prepare"],
        "metrics": [{"metrics/data.json": {"cache": False}}],
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": stage}}))
    commit(folder)
    (folder / "data/raw/mine.jsonl").write_text(RAW)
    return folder


@pytest.mark.parametrize(
    "commands",
    [*([*ADDED, *kind] for kind in KINDS.values()), KINDS["in the workspace"], COPIED],
    ids=[*(f"added, {kind}" for kind in KINDS), "not added, in the workspace", "not added, copied"],
)
def test_experiments_have_the_users_file_and_leave_it_where_it_is(reader, tmp_path, commands):
    folder = Path(shutil.copytree(reader, tmp_path / "project"))
    for command in commands:
        printed = run(folder, *command.split())
        assert "ERROR" not in printed, printed
    assert (folder / "data/raw/mine.jsonl").read_text() == RAW
    found = len(run(folder, "dvc", "exp", "list", "--name-only").split())
    assert found == (2 if "--run-all" in commands[-1] else 1)
    git(folder, "add", "--all")
    assert "data/raw/mine.jsonl" not in git(folder, "ls-files").splitlines()


def test_an_experiment_without_the_users_file_fails_and_leaves_the_file(reader, tmp_path):
    folder = Path(shutil.copytree(reader, tmp_path / "project"))
    with pytest.raises(AssertionError):
        run(folder, *KINDS["in a folder of its own"][0].split())
    assert (folder / "data/raw/mine.jsonl").read_text() == RAW


def test_what_dvc_writes_beside_raw_data_reruns_nothing(reader, tmp_path):
    folder = Path(shutil.copytree(reader, tmp_path / "project"))
    run(folder, "dvc", "repro")
    (folder / "data/raw/.gitignore").write_text("/mine.jsonl\n")
    assert "up to date" in run(folder, "dvc", "status")


@pytest.mark.parametrize("command", [["python", "-m", "stages.repro"], ["make", "repair"]])
def test_a_torn_lock_is_restored_and_nothing_reruns(reader, tmp_path, command):
    folder = Path(shutil.copytree(reader, tmp_path / "project"))
    (folder / ".venv").mkdir()
    (folder / ".venv/installed").touch()  # make uses the Python of the tests, and installs nothing
    run(folder, "python", "-m", "stages.repro")
    whole = (folder / "dvc.lock").read_bytes()
    (folder / "dvc.lock").write_bytes(whole[: len(whole) // 2])
    assert "the last whole one replaces it" in run(folder, *command)
    assert (folder / "dvc.lock").read_bytes() == whole
    assert "up to date" in run(folder, "dvc", "repro")
