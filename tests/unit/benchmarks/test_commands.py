"""Every benchmark explains itself, refuses what it does not know, and starts nothing meanwhile."""

import re
import runpy

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # imported before

COMMANDS = [
    "coverage",
    "fsdp_memory",
    "loss_curves",
    "malformed",
    "memory_limits",
    "random_model",
    "recipes",
    "scaling",
    "serving",
    "step_memory",
    "train_stage",
    "training_speed",
]


def started(monkeypatch, name: str, *arguments: str) -> int:
    """Runs `python -m benchmarks.NAME` in this process; returns the status that it ends with."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
    return ended.value.code or 0


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_is_measured_and_how_to_start_it(name, monkeypatch, capsys):
    assert started(monkeypatch, name, "--help") == 0
    printed = capsys.readouterr().out
    assert f"usage: python -m benchmarks.{name}" in printed
    assert f"\npython -m benchmarks.{name}" in printed.replace("NPROC=N ", "")


def test_the_readme_has_every_command_and_names_files_that_exist():
    readme = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"python -m benchmarks\.(\w+)", readme))
    assert named == set(COMMANDS) - {"recipes"}
    for file in re.findall(r"results/[\w.]+\w", readme):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("training_speed", ["0", "speed"], "BATCHES: found '0'; expected a whole number above 0"),
        ("training_speed", ["16", "sped"], "RECIPE: invalid choice: 'sped'"),
        (
            "training_speed",
            ["1", "score", "--tokens", "9", "--out", "f"],
            "--tokens needs --out, and recipes that train",
        ),
        ("training_speed", ["1", "speed", "--tokens", "9"], "--tokens needs --out, and recipes that train"),
        ("step_memory", ["qwen2-70b"], "SHAPE: invalid choice: 'qwen2-70b'"),
        ("scaling", ["2", "16"], "PROCESSES: found '2'; expected at least two numbers, with commas, as 1,2"),
        ("memory_limits", ["qwen2-7b"], "the following arguments are required: GB"),
    ],
)
def test_wrong_arguments_are_named(name, arguments, message, monkeypatch, capsys):
    assert started(monkeypatch, name, *arguments) == 2
    assert message in capsys.readouterr().err
