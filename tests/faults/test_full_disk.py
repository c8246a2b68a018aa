"""Every stage on a disk that is full: said in a sentence, nothing before it lost, and it runs once there is room."""

import pytest

from tests.faults.project import copied, results, start, tiny_project
from tests.pipeline.project import run

pytestmark = pytest.mark.faults
# The largest file that a stage may write, in blocks of 1,024 bytes: less than it needs.
BLOCKS = {"prepare": 40, "probe": 4, "train": 100, "select": 20, "evaluate": 4, "folds": 1}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory, base_folder):
    folder = tiny_project(tmp_path_factory.mktemp("full"), base_folder)
    run(folder, "dvc", "repro")
    return folder, results(folder)


@pytest.mark.parametrize("stage", BLOCKS)
def test_a_full_disk_is_reported_and_the_run_resumes_once_there_is_room(reproduced, tmp_path, counts, stage):
    project, expected = reproduced
    folder = copied(project, tmp_path)
    log = folder / "runs/log"
    command = f"trap '' XFSZ; ulimit -f {BLOCKS[stage]}; exec python -m stages.{stage}"
    before = {file: file.read_bytes() for file in (folder / "models").rglob("*") if file.is_file()}
    if stage == "train":
        for training in (folder / "runs/train").iterdir():
            for state in training.glob("*-*"):
                run(folder, "rm", "-r", str(state))
    code = start(folder, "bash", "-c", command, log=log).wait(timeout=300)
    printed = log.read_text(errors="replace")
    counts["tracebacks"] += "Traceback" in printed
    assert code == 1, printed
    assert "Make room" in printed
    assert "Traceback" not in printed
    assert {file: file.read_bytes() for file in before} == before
    run(folder, "dvc", "repro", "--force", "--single-item", stage)
    run(folder, "python", "-m", "stages.repro")
    assert results(folder) == expected
    counts["full disks survived"] += 1
