"""The stage: which systems take part, and what it says of those that don't."""

import json
from pathlib import Path

import pytest

from stages import params
from stages.errors import UserError
from stages.folds.__main__ import main
from stages.folds.scores import data_hash, read_collected, recipe, write_collected
from stages.out_of_fold import write_scores
from stages.text.example import Example, write_examples

POOL = [Example(f"t{n}", n % 2 == 0, source=f"a:{n}", unit=n // 2, fold=n % 5) for n in range(60)]
SCORES = {e.source: ((n * 7) % 11 - 5.0, ((n * 7) % 11 - 5.0) / 2 + 3 * e.label) for n, e in enumerate(POOL)}


@pytest.fixture
def stage(tmp_path, monkeypatch, changed):
    """Writes the rows and the baseline's scores, and returns a function that runs the stage and reads its report."""
    changed({})
    monkeypatch.chdir(tmp_path)
    for name, rows in (("train", POOL[:40]), ("valid", POOL[40:50]), ("test", POOL[50:])):
        write_examples(Path(f"data/processed/{name}.jsonl"), rows)
    write_scores(Path("data/processed/baseline/folds.csv"), SCORES.keys(), SCORES.values())

    def run_stage():
        main()
        return json.loads(Path("metrics/folds.json").read_text(encoding="utf-8"))

    return run_stage


def collect(pool=POOL, **values):
    chosen = params.load()
    record = {"data": data_hash(pool), "dataset": "sample", "params": recipe(chosen), "date": "2026-11-25"}
    write_collected(Path("data/folds"), SCORES, record | {"environment": {"device": "cpu"}} | values)


def test_cheap_systems_take_part_always_and_the_probe_if_it_is_there(stage, capsys):
    assert stage().keys() >= {"baseline", "size", "always_fraud"}
    assert "folds: model and combined are left out: data/folds holds no scores" in capsys.readouterr().out
    write_scores(Path("data/probe/folds.csv"), SCORES.keys(), SCORES.values())
    report = stage()
    assert report.keys() >= {"baseline", "probe", "combined_cheap"}
    assert report.keys().isdisjoint({"model", "combined"})


def test_the_models_scores_count_for_their_data_and_name_params_that_differ(stage, capsys, changed):
    collect()
    report = stage()
    assert report.keys() >= {"baseline", "model", "combined"}
    assert report["collected"] == {"date": "2026-11-25", "environment": {"device": "cpu"}, "with_present_params": True}
    assert "WARNING" not in capsys.readouterr().out
    # A fold's train has fewer rows with a larger valid.
    changed({"train/learning_rate": 1e-3, "train/logging_steps": 1, "prepare/valid_fraction": 0.5})
    assert stage()["collected"]["with_present_params"] is False
    expected = "made with other params (prepare.valid_fraction, train.learning_rate); `make folds` renews them"
    assert expected in capsys.readouterr().out
    collect([*POOL[:-1], Example("another text", False, source="a:59", unit=29, fold=4)])
    assert "model" not in stage()
    assert "left out: data/folds holds scores of other rows (datasets.sample, 2026-11-25)" in capsys.readouterr().out


def test_order_and_units_change_no_hash_and_labels_and_folds_do():
    assert data_hash(POOL) == data_hash(POOL[::-1])
    for other in (Example("t0", False, source="a:0", fold=0), Example("t0", True, source="a:0", fold=1)):
        assert data_hash([other, *POOL[1:]]) != data_hash(POOL)


def test_without_a_pool_and_for_a_single_fold_the_report_says_so(stage, changed, capsys):
    changed({"prepare/fold": 2})
    assert stage() == {"pool": "none: this run holds out one fold alone"}
    changed({"prepare/train_rows": 40})
    assert stage() == {"pool": "none: the systems of this run learn from prepare.train_rows alone"}
    changed({})
    for name in ("train", "valid", "test"):
        write_examples(Path(f"data/processed/{name}.jsonl"), [Example("a", True, source="b:1")])
    assert stage() == {"pool": "none: the data set has splits of its own, or is too small for folds"}
    assert "folds: pool: none" in capsys.readouterr().out


def test_a_row_without_a_score_and_damaged_files_are_named(stage):
    write_scores(Path("data/processed/baseline/folds.csv"), ["a:0"], [(0.0, 0.0)])
    with pytest.raises(UserError, match=r"folds.csv has no score for 59 of 60 rows, the first a:1"):
        stage()
    collect()
    Path("data/folds/model.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"model.csv and model.json are damaged \(KeyError\('data'\)\)"):
        read_collected(Path("data/folds"))
