"""`make seeds` and `python -m stages.seeds`."""

import shutil
import subprocess
import sys

import pytest

from stages.errors import UserError
from stages.seeds.__main__ import main
from tests.conftest import ROOT


def test_the_check_reports_a_problem_in_a_sentence(project):
    (project / "项目").mkdir()
    shutil.copyfile(ROOT / "params.yaml", project / "项目/params.yaml")
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "stages.seeds", "--check"]
    done = subprocess.run(command, cwd=project / "项目", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {project / '项目'}: DVC's queue fails or hangs in a folder whose path ")


def test_make_seeds_looks_before_it_queues():
    lines = subprocess.run(["make", "--dry-run", "seeds"], cwd=ROOT, capture_output=True, text=True).stdout
    assert 0 < lines.index("stages.repro --repair") < lines.index("stages.seeds --check") < lines.index("--queue")


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_a_method_that_sets_the_seed_is_refused(changed, tmp_path, monkeypatch, arguments):
    changed({"methods/qlora/train": {"seed": 7}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["seeds", *arguments])
    with pytest.raises(UserError, match="methods.qlora.train.seed is 7 and replaces train.seed"):
        main()
