"""Figures against the committed ones: a regression is outside the bands, other seeds and machines are within."""

import copy
import re
import subprocess
import sys

import numpy as np
import pytest

from stages import params
from stages.artifacts import read_json, write_json
from stages.command import CheckFailedError
from stages.errors import UserError
from stages.verify.__main__ import main
from stages.verify.bands import compare_figures, look_at
from stages.verify.pipeline import call
from tests.conftest import ROOT
from tests.unit.pages.committed import COMMITTED

BANDS = params.load(ROOT / "params.yaml").verify.bands


@pytest.fixture
def verify(tmp_path, monkeypatch, capsys):
    """Verifies figures that differ from the committed ones by {system.metric: number to add}."""
    committed = read_json(ROOT / "metrics/evaluate.json")
    write_json(tmp_path / "metrics/evaluate.json", committed)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "test"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)

    def run(changes, *arguments):
        found = copy.deepcopy(committed)
        for name, by in changes.items():
            system, metric = name.split(".")
            found[system][metric] += by
        write_json(tmp_path / "metrics/evaluate.json", found)
        monkeypatch.setattr("sys.argv", ["verify", *(arguments or ["--no-run"])])
        main()
        return capsys.readouterr().out

    return run


@COMMITTED
@pytest.mark.parametrize("machine", sorted(folder.name for folder in (ROOT / "results/cpu").iterdir()))
def test_the_default_run_of_other_machines_is_let_through(machine):
    """docs/ci.md has the moves of the model."""
    committed, found = (read_json(ROOT / folder / "evaluate.json") for folder in ("metrics", f"results/cpu/{machine}"))
    rows = compare_figures(committed, found, BANDS)
    assert [row.name for row in rows if not row.within] == []
    moved = {row.name: abs(row.new - row.old) for row in rows}
    cells = " | ".join(f"{moved[f'model.{metric}']:.4f}".lstrip("0") for metric in ("average_precision", "f1"))
    assert f"| {cells} |" in (ROOT / "docs/ci.md").read_text()


def test_the_measured_moves_of_seeds_are_let_through(verify):
    assert "all 13 figures are within" in verify({})
    for seed in (-1, 0.5, 1):
        verify({"model.average_precision": 0.0043 * seed, "model.f1": 0.024 * seed, "combined.f1": 0.023 * seed})


FLIPPED = [run for run in read_json(ROOT / "results/h200/flips.json")["runs"] if "test" in run]


@COMMITTED
@pytest.mark.parametrize("run", FLIPPED, ids=lambda run: f"{run['flipped']:.0%} by seed {run['seed']}")
def test_other_seeds_pass_and_a_fifth_of_wrong_labels_in_train_does_not(run, verify):
    """Trainings of the default recipe on a GPU: the table of docs/ci.md."""
    committed = read_json(ROOT / "metrics/evaluate.json")["model"]
    moves = {f"model.{metric}": run["test"][metric] - committed[metric] for metric in ("average_precision", "f1")}
    if run["flipped"] < 0.2:
        assert "all 13 figures are within" in verify(moves)
    else:
        with pytest.raises(
            CheckFailedError, match=r"2 of 13 .*model.average_precision, model.f1. Look at the training"
        ):
            verify(moves)


def test_the_page_shows_what_wrong_labels_cost():
    page = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
    seeds = [run["test"] for run in FLIPPED if not run["flipped"]]
    for share in (0.02, 0.05, 0.1, 0.2):
        runs = [run["test"] for run in FLIPPED if run["flipped"] == share]
        (cells,) = re.findall(rf"^\| {share:.0%} \| {len(runs)} \| (\S+).*? \| (\S+)".replace("%", " %"), page, re.M)
        for metric, cell in zip(("average_precision", "f1"), cells, strict=True):
            moved = np.mean([run[metric] for run in runs]) - np.mean([run[metric] for run in seeds])
            assert float(cell.replace("−", "-")) == pytest.approx(moved, abs=6e-4)


def test_a_regression_is_caught_and_says_where_to_look(verify):
    with pytest.raises(CheckFailedError, match=r"1 of 13 .*model.average_precision. Look at the training"):
        verify({"model.average_precision": -0.031})
    with pytest.raises(CheckFailedError, match=r"2 of 13 .*size.rows, baseline.f1. Look at the rows of test"):
        verify({"size.rows": -1, "baseline.f1": 0.006})


def test_other_params_are_refused(verify, tmp_path):
    text = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("learning_rate: 3e-4", "learning_rate: 1e-4"), encoding="utf-8")
    with pytest.raises(UserError, match="differs from that of HEAD in train; expected the same"):
        verify({})


def test_stages_run_though_their_outputs_are_there(verify, monkeypatch):
    called = []
    monkeypatch.setattr("stages.verify.pipeline.call", lambda *given: called.append(given))
    assert "all 13 figures are within" in verify({}, "--device", "cpu")
    ((command, environment),) = called
    assert command[1:] == ["-m", "stages.repro", "--force", "report"]
    assert environment == {"CUDA_VISIBLE_DEVICES": ""}


def test_a_pipeline_that_fails_is_named():
    with pytest.raises(UserError, match="`python -c raise SystemExit.3.` ended with status 3; expected 0"):
        call([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_missing_figure_is_outside_and_sums_are_blamed_on_their_parts():
    found = compare_figures(
        {"model": {"f1": 0.5}, "combined": {"f1": 0.5}}, {}, {"model": {"f1": 1}, "combined": {"f1": 1}}
    )
    assert [row.within for row in found] == [False, False]
    assert [line.split(":")[0] for line in look_at(found)] == ["the training"]


def test_bands_are_checked(changed):
    with pytest.raises(params.ParamsError, match=r"verify: bands.model.f1 is -1; expected a number from 0 on"):
        params.load(changed({"verify/bands": {"model": {"f1": -1}}}))
    with pytest.raises(params.ParamsError, match=r"verify: bands.model is 3; expected numbers by metric"):
        params.load(changed({"verify/bands": {"model": 3}}))
    for empty in ({}, {"model": {}}):
        with pytest.raises(params.ParamsError, match="verify: bands is empty, so that every figure would pass"):
            params.load(changed({"verify/bands": empty}))
