"""`make folds` and `python -m stages.collect`."""

import subprocess
from dataclasses import replace

import pytest

from stages.collect.__main__ import main
from stages.collect.experiments import require_rows
from stages.errors import UserError
from stages.text.example import Example, write_examples
from tests.conftest import ROOT

POOL = [Example(f"t{n}", n % 2 == 0, source=f"a:{n}", unit=n, fold=n % 5) for n in range(10)]


def test_make_folds_looks_before_it_queues():
    lines = subprocess.run(["make", "--dry-run", "folds"], cwd=ROOT, capture_output=True, text=True).stdout
    order = ["stages.repro prepare", "stages.collect --check", "--queue", "--run-all", "stages.collect\n", "item folds"]
    assert sorted(order, key=lines.index) == order


@pytest.mark.parametrize(
    ("values", "fold", "message"),
    [
        ({}, None, "test.jsonl is missing; expected the rows of a run with prepare.fold null"),
        ({"prepare/fold": 1}, 1, "prepare.fold is 1; expected the rows of a run with prepare.fold null"),
        ({"prepare/train_rows": 5}, 1, "prepare.train_rows is 5; expected null"),
        ({"evaluate/mode": "generate"}, 1, "evaluate.mode is generate, whose answers have no scores"),
        ({}, -1, "datasets.sample has no folds; expected a pool, with 5 units"),
    ],
)
def test_what_five_trainings_would_be_wasted_on_is_reported_first(
    tmp_path, monkeypatch, changed, values, fold, message
):
    changed(values)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["collect", "--check"])
    for name in ("train", "valid", *(["test"] if fold is not None else [])):
        write_examples(tmp_path / f"data/processed/{name}.jsonl", [replace(e, fold=fold or 0) for e in POOL])
    with pytest.raises(UserError, match=message):
        main()


@pytest.mark.parametrize("other", [{"input": "x"}, {"label": False}, {"fold": 3}, {"source": "b:0"}])
def test_rows_that_were_scored_otherwise_are_refused(other):
    require_rows(POOL, [*POOL, Example("more", True, source="c:1")])
    with pytest.raises(UserError, match="1 of 10 rows of data/processed, the first a:0, are not in the experiments"):
        require_rows(POOL, [replace(POOL[0], **other), *POOL[1:]])
