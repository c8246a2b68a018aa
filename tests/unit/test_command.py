"""What every command does alike: --help, and an error in the wrong folder or with the wrong Python."""

import runpy
import subprocess
import sys

import pytest

from stages.command import start_processes
from stages.errors import UserError
from tests.conftest import ROOT

STAGES = ["fetch", "prepare", "benchmark", "train", "select", "evaluate"]


def start(monkeypatch, module: str, *arguments: str) -> int:
    """Runs a command in this process, where torch is imported once for all. Returns its status."""
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"stages.{module}", run_name="__main__", alter_sys=True)
    return ended.value.code


@pytest.mark.parametrize("module", [*STAGES, "predict", "seeds", "plan", "repro"])
def test_help_says_what_a_command_does_and_starts_nothing(monkeypatch, capsys, module):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("NPROC", "2" if module in STAGES else "1")  # predict reads its options in each process
    assert start(monkeypatch, module, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python -m stages.{module} [-h]")
    purpose = shown.split("\n\n")[1]
    assert len(purpose.split()) >= 5


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_refuses_arguments(monkeypatch, capsys, stage):
    assert start(monkeypatch, stage, "--model", "x") == 2
    assert "unrecognized arguments: --model x" in capsys.readouterr().err


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
    assert done.returncode == 2
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


@pytest.mark.parametrize(
    ("error", "status"),
    [("command.CheckFailedError('worse')", 1), ("errors.UserError('no such commit')", 2), ("KeyError('a fault')", 2)],
)
def test_a_check_that_failed_has_a_status_of_its_own(error, status):
    script = f"from stages import command, errors\ndef fail(): raise {error}\ncommand.run(fail, error_status=2)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert error.split("'")[1] in done.stderr


def test_what_is_printed_is_in_a_log_at_once():
    script = "import os\nfrom stages.command import run\nrun(lambda: (print('step 1'), os._exit(0)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "step 1\n"


def test_repro_names_an_unknown_key_before_dvc_starts(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text + "experimant: 3\n", encoding="utf-8")
    assert start(monkeypatch, "repro") == 1
    assert "experimant: unknown key" in capsys.readouterr().err
