"""The report of a set: its parts, the difference to the baseline, and what is left open."""

from dataclasses import replace

import numpy as np
from sklearn.metrics import average_precision_score

from stages import params
from stages.evaluate.compare import compare_systems, slices
from stages.evaluate.intervals import weighted_metrics
from stages.evaluate.predictors import Predictions
from stages.text.example import Example
from tests.conftest import ROOT
from tests.unit.evaluate.systems import fixed, make_system, set_of

EVALUATE = replace(
    params.load(ROOT / "params.yaml").evaluate, bootstrap_samples=200, without_categories=["k0"], further_sets={}
)


def test_the_report_of_a_set_has_its_clean_part_and_the_difference():
    rng = np.random.default_rng(2)
    y_true = rng.random(200) < 0.5
    examples = [
        Example("字" * (10 + n), bool(label), unit=n // 2, leak="verbatim" if n < 100 else "", category=f"k{n % 2}")
        for n, label in enumerate(y_true)
    ]
    systems = {"model": make_system(rng, y_true, 1.5), "baseline": make_system(rng, y_true, 0.2)}
    whole = compare_systems(examples, systems, EVALUATE)
    assert whole["size"]["rows"] == 200
    assert whole["clean"]["size"]["rows"] == whole["leaking"]["size"]["rows"] == 100
    assert whole["model"]["average_precision_low"] < whole["model"]["average_precision"]
    assert whole["difference"]["average_precision_low"] > 0  # the model is that much better
    others = whole["without_categories"]
    assert others["size"]["rows"] == 100
    expected = average_precision_score(y_true[1::2], systems["model"].y_score[1::2])
    assert others["model"]["average_precision"] == expected
    clean = whole["clean"]["model"]
    assert clean["average_precision"] == average_precision_score(y_true[100:], systems["model"].y_score[100:])
    sliced = list(slices("test", examples, systems))
    assert {row["by"] for row in sliced} == {"category", "characters", "source", "leak"}
    assert sum(row["rows"] for row in sliced if row["by"] == "characters" and row["system"] == "model") == 200


def test_a_single_class_set_has_no_ranking_metrics():
    system = fixed(np.array([1.0, -1.0]))
    whole = compare_systems(
        [Example("a", True, unit=0), Example("b", True, unit=1)], {"model": system, "baseline": system}, EVALUATE
    )
    assert (whole["model"]["tp"], whole["model"]["fn"]) == (1, 1)
    assert "average_precision" not in whole["model"]


def test_fewer_than_five_units_have_no_intervals_and_a_resample_of_one_class_does_not_count():
    rng = np.random.default_rng(4)
    y_true = rng.random(60) < 0.5
    systems = {"model": make_system(rng, y_true, 1.5), "baseline": make_system(rng, y_true, 0.2)}
    rows = [Example("a", bool(label), unit=n // 30) for n, label in enumerate(y_true)]
    whole = compare_systems(rows, systems, EVALUATE)
    assert "f1_low" not in whole["model"]
    assert set(whole["difference"]) == {"average_precision", "roc_auc", "f1", "precision", "recall"}
    weights = np.stack([y_true, ~y_true, np.ones(60)]).astype(float)
    found = weighted_metrics(systems["model"], y_true, weights)
    assert all(np.isnan(values[:2]).all() and not np.isnan(values[2]) for values in found.values())


def test_written_answers_have_intervals_of_decisions_only():
    system = Predictions(np.array([1.0, np.nan, 0.0, 1.0] * 10), 0.5)
    examples = [Example("a", n % 2 == 0, unit=n) for n in range(40)]
    whole = compare_systems(examples, {"model": system, "baseline": system}, EVALUATE)
    assert whole["model"]["unparsable"] == 10
    assert {"f1", "f1_low", "f1_high"} <= whole["model"].keys()
    assert "average_precision" not in whole["difference"]


def test_a_slice_leaves_undefined_metrics_empty():
    examples, systems = set_of([False] * 10 + [True] * 10, [1.0] * 5 + [-1.0] * 15)
    examples = [replace(example, category=str(example.label)) for example in examples]
    of_category = {row["value"]: row for row in slices("x", examples, systems) if row["by"] == "category"}
    harmless, fraud = of_category["False"], of_category["True"]
    assert [harmless[name] for name in ("precision", "recall", "f1")] == [None] * 3
    assert harmless["false_alarms_per_1000"] == 500
    assert (fraud["precision"], fraud["recall"], fraud["f1"]) == (None, 0, 0)
    assert "false_alarms_per_1000" not in fraud
