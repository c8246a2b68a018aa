"""Folds of a pool, and the baseline's scores out of fold."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.artifacts import read_csv
from stages.data.lines import DataError
from stages.prepare.__main__ import main as prepare_main
from stages.text.example import read_examples
from tests.unit.prepare.tables import encode

POOL = {"datasets/sample": {"pool": "data/raw/a.jsonl"}}
ROWS = [
    {
        "input": f"{'转账' if n % 3 else '天气'}{chr(0x4E00 + 97 * (n % 90)) * 5}{n * 7919}",
        "label": n % 2,
        "group": n // 2,
    }
    for n in range(200)
]


def processed(name):
    return read_examples(Path(f"data/processed/{name}.jsonl"))


def test_each_row_has_a_fold_and_the_scores_are_those_of_a_run_with_that_fold(project):
    project({"a.jsonl": encode(ROWS).decode()}, POOL)
    prepare_main()
    pool = [e for name in ("train", "valid", "test") for e in processed(name)]
    fold = {e.source: e.fold for e in pool}
    assert sorted(set(fold.values())) == [0, 1, 2, 3, 4]
    assert len({(e.group, e.fold) for e in pool}) == 100  # no case is in two folds
    scores = {row["source"]: row for row in read_csv(Path("data/processed/baseline/folds.csv"))}
    assert [row["source"] for row in scores.values()] == [f"a.jsonl:{n + 1}" for n in range(200)]
    for held in (0, 3):
        project({}, POOL | {"prepare/fold": held})
        prepare_main()
        test = processed("test")
        assert {e.source for e in test} == {source for source, number in fold.items() if number == held}
        assert len(processed("valid")) == pytest.approx(30, abs=4)
        ours = read_csv(Path("data/processed/baseline/test.csv"))
        assert [row["log_odds"] for row in ours] == [scores[e.source]["log_odds"] for e in test]
        raw, calibrated = (np.array([float(scores[e.source][key]) for e in test]) for key in ("log_odds", "calibrated"))
        assert np.ptp(calibrated - np.polyval(np.polyfit(raw, calibrated, 1), raw)) < 1e-9  # one line for the fold
        split = {row["source"]: row[f"fold_{held}"] for row in read_csv(Path("data/processed/folds.csv"))}
        again = {e.source: name for name in ("train", "valid", "test") for e in processed(name)}
        assert split == again


def test_a_pool_too_small_for_folds_has_none_and_says_so(project, capsys):
    rows = [{"input": chr(0x4E00 + 131 * n) * 9, "label": n % 4 == 0} for n in range(16)]
    project({"a.jsonl": encode(rows).decode()}, POOL)
    prepare_main()
    printed = capsys.readouterr().out
    assert "prepare: no out-of-fold scores of the baseline: splits of your own and small pools have no folds" in printed
    assert not Path("data/processed/baseline/folds.csv").exists()
    assert {e.fold for e in processed("train")} == {-1}
    project({}, POOL | {"prepare/fold": 1})
    with pytest.raises(DataError, match="prepare.fold is 1, and no row is in that fold"):
        prepare_main()


def test_large_units_few_units_and_tiny_splits_are_warned_of(project, capsys):
    rows = [{"input": chr(0x4E00 + 131 * n) * 9, "label": n % 2, "group": "big" if n < 60 else n} for n in range(160)]
    project({"a.jsonl": encode(rows).decode()}, POOL)
    prepare_main()
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "WARNING: 60 rows (37.5%) are one unit, joined by groups or similar texts; its first row is a.jsonl:1"
        in printed
    )
    assert "WARNING: train has 120 rows in 61 units, which say as much as 3.9 of equal size" in printed
    assert "WARNING: valid has 15 rows, " in printed
    report = json.loads(Path("metrics/data.json").read_text(encoding="utf-8"))
    assert report["train"]["effective_units"] == pytest.approx(120**2 / (60**2 + 60))
