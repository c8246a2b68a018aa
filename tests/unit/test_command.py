"""A command that is run in the wrong folder, or by the wrong Python, says so."""

import subprocess
import sys

import pytest

from stages.command import start_processes
from stages.errors import UserError
from tests.conftest import ROOT


@pytest.mark.parametrize("command", [["repro", "--repair"], ["predict", "--file", "x"], ["seeds"]])
def test_a_command_in_another_folder_says_where_to_stand(tmp_path, command):
    module, *arguments = command
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", f"stages.{module}", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"error: {tmp_path} holds no params.yaml; expected the project's root as working directory: cd {ROOT}\n"
    )


@pytest.mark.parametrize("stage", ["fetch", "prepare", "predict", "repro"])
def test_a_python_without_the_packages_says_which_one_to_take(tmp_path, stage):
    python = tmp_path / "bin/python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    done = subprocess.run([python, "-m", f"stages.{stage}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {python} (Python 3.")
    assert "source .venv/bin/activate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", ["0", "two", "-1", "1.5"])
def test_an_invalid_number_of_processes_is_refused(number):
    with pytest.raises(UserError, match=f"NPROC is '{number}'; expected a number of processes, one a GPU"):
        start_processes(number)


def test_a_stage_reads_the_number_of_processes_before_it_does_anything(tmp_path):
    (tmp_path / "params.yaml").touch()
    command = ["env", "NPROC=two", f"PYTHONPATH={ROOT}", sys.executable, "-m", "stages.train"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("error: NPROC is 'two'; expected a number of processes, one a GPU")
