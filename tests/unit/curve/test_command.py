"""`make curve` and `python -m stages.curve`."""

import subprocess
from dataclasses import replace

import pytest

from stages.curve.__main__ import find_runs, main, read_sizes
from stages.curve.experiments import point
from stages.errors import UserError
from stages.seeds.statistics import Run
from stages.text.example import Example, write_examples
from tests.conftest import ROOT

POOL = [Example(f"t{n}", n % 2 == 0, source=f"a:{n}", unit=n, fold=n % 5) for n in range(500)]


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ([], []),
        (["SIZES=50,all"], ["--sizes", "50,all"]),
        (["FOLDS=1", "SIZES=50"], ["--sizes", "50", "--folds"]),
        (["FOLDS=0"], []),
    ],
)
def test_make_curve_prepares_queues_runs_and_collects(variables, options):
    command = ["make", "--dry-run", "curve", *variables]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    lines = [line.split() for line in printed.splitlines() if line.startswith(("python -m stages", "dvc"))]
    curve = ["python", "-m", "stages.curve"]
    expected = [["python", "-m", "stages.repro", "prepare"], [*curve, "--queue", *options]]
    assert lines == [*expected, ["dvc", "exp", "run", "--run-all"], [*curve, *options]]


@pytest.mark.parametrize(
    ("text", "rows", "sizes"),
    [
        (None, 413, [200, 400, None]),
        (None, 400, [200, None]),
        (None, 150, [None]),
        ("", 900, [200, 400, 800, None]),
        ("all, 400,100,100", 413, [100, 400, None]),
        ("1,412", 413, [1, 412]),
    ],
)
def test_sizes_double_up_to_all_rows_or_are_those_asked_for(text, rows, sizes):
    assert read_sizes(text, rows) == sizes


@pytest.mark.parametrize("word", ["0", "413", "-5", "2e2", "ALL", "", "２００"])
def test_a_size_that_is_none_is_named(word):
    with pytest.raises(UserError, match=f"sizes: found '{word}'; expected whole numbers from 1 to 412, or all"):
        read_sizes(f"100,{word}", 413)


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        ({"prepare/fold": 1}, [], "prepare.fold is 1; expected null"),
        ({"prepare/train_rows": 50}, [], "prepare.train_rows is 50; expected null"),
        ({"evaluate/mode": "generate"}, [], "evaluate.mode is generate, whose answers have no scores"),
        ({}, ["--sizes", "600"], "sizes: found '600'; expected whole numbers from 1 to 299"),
        ({}, ["--folds"], "datasets.sample has no folds"),
    ],
)
def test_what_trainings_would_be_wasted_on_is_reported_before_they_are_queued(
    tmp_path, monkeypatch, changed, values, arguments, message
):
    changed(values)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["curve", "--queue", *arguments])
    for name, rows in {"train": POOL[:300], "valid": POOL[300:400], "test": POOL[400:]}.items():
        write_examples(tmp_path / f"data/processed/{name}.jsonl", [replace(row, fold=-1) for row in rows])
    with pytest.raises(UserError, match=message):
        main()


def listed(revision, rows=None, fold=None, seed=42):
    params = {"prepare": {"train_rows": rows, "fold": fold, "seed": seed}}
    return {"rev": revision, "data": {"params": {"params.yaml": {"data": params}}}}


def test_an_experiment_counts_before_the_commit_and_a_missing_one_is_named(monkeypatch):
    runs = [listed("b", 200), listed("c", 200, seed=1), listed("d", 200, fold=1), listed("e", 200)]
    commit = listed("a") | {"experiments": [{"revs": runs}]}
    shown = [listed("workspace"), commit]
    monkeypatch.setattr("stages.curve.__main__.list_experiments", lambda: shown)
    monkeypatch.setattr("stages.seeds.statistics.read_figures", lambda revision: {"model": {}})
    found = find_runs([200, None], [None])
    assert {key: run.revision for key, run in found.items()} == {(200, None): "b", (200, 1): "d", (None, None): "a"}
    runs.append(listed("f"))
    assert find_runs([None], [None])[None, None].revision == "f"
    with pytest.raises(UserError, match=r"for 3 of 4 runs, the first with prepare.train_rows 200 and prepare.fold 0"):
        find_runs([200, None], [0, 1])


def test_a_point_holds_average_precision_and_what_trained_systems_are_ahead():
    block = {"average_precision": 0.5, "average_precision_low": 0.4, "average_precision_high": 0.6, "f1": 0.7}
    names = ("zero_shot", "baseline", "probe", "combined_cheap", "model", "combined")
    report = dict.fromkeys(names, block) | {
        "best_cheap": {"name": "probe"},
        "size": {"rows": 9, "units": 3, "x": 1},
    }
    report["ahead"] = {"model": {"average_precision": -0.1, "f1": 0.0}, "combined": block, "baseline": block}
    kept = {key: block[key] for key in block if key != "f1"}
    expected = dict.fromkeys(names[1:], kept) | {"ahead": {"model": {"average_precision": -0.1}, "combined": kept}}
    assert point(Run({}, report).metrics) == expected | {
        "best_cheap": {"name": "probe"},
        "test": {"rows": 9, "units": 3},
    }
