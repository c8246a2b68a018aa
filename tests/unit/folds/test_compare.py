"""Figures out of fold: what is chosen on the other folds, and scikit-learn's numbers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score

from stages import params
from stages.folds.compare import best_cheap, by_other_folds, compare_out_of_fold, predictions, recalibrated
from stages.metrics import ThresholdRule
from stages.text.example import Example
from tests.conftest import ROOT

CHOSEN = params.load(ROOT / "params.yaml")
CHOSEN = replace(CHOSEN, evaluate=replace(CHOSEN.evaluate, bootstrap_samples=200))


def simulated(rows=600, seed=0):
    """Rows, and calibrated log-odds of systems of known quality: the model's signal is not the baseline's."""
    rng = np.random.default_rng(seed)
    y_true = rng.random(rows) < 0.5
    pool = [Example(f"t{n}", bool(y_true[n]), source=f"a:{n}", unit=n // 2, fold=n // 2 % 5) for n in range(rows)]
    sign = np.where(y_true, 1.0, -1.0)
    shift = {"baseline": 1.0, "probe": 0.5, "model": 1.0}  # of a normal score, whose log-odds are 2 shift x score
    return pool, y_true, {name: 2 * d * (d * sign + rng.normal(size=rows)) for name, d in shift.items()}


def test_values_come_from_the_other_folds_alone():
    fold = np.array([0, 1, 2, 0, 1, 2])
    values = np.array([1.0, 10, 100, 1, 10, 100])
    found = by_other_folds(fold, lambda here, there: values[there].sum() / 2)
    assert found.tolist() == [110, 101, 11, 110, 101, 11]


def test_a_threshold_is_not_chosen_on_the_rows_that_it_decides():
    fold = np.repeat([0, 1], 4)
    y_true = np.array([0, 0, 1, 1, 0, 1, 1, 1], dtype=bool)
    log_odds = np.array([-2.0, -1, 1, 2, -2, -1, 1, 2])
    rule = ThresholdRule("min_cost")
    found = predictions(log_odds, y_true, fold, rule)
    assert len(set(found.threshold[:4])) == len(set(found.threshold[4:])) == 1
    assert expit(-2) < found.threshold[0] <= expit(-1)  # fold 1 separates between -2 and -1
    assert expit(-1) < found.threshold[4] <= expit(1)
    assert found.y_pred.tolist() == [False, True, True, True, False, False, True, True]


def test_a_rule_that_the_other_folds_cannot_keep_raises_no_alarm():
    fold, y_true = np.repeat([0, 1], 4), np.array([1, 0, 1, 0] * 2, dtype=bool)
    found = predictions(np.arange(8.0) % 2, y_true, fold, ThresholdRule("precision_at_least", min_precision=0.99))
    assert not found.y_pred.any()


def test_metrics_are_those_of_scikit_learn_and_combinations_gain_what_they_should():
    pool, y_true, scores = simulated()
    report = compare_out_of_fold(pool, scores, {e.source for e in pool[:400]}, CHOSEN)
    assert report["size"] == {"rows": 600, "units": 300, "effective_units": 300, "fraud_fraction": y_true.mean()}
    model = report["model"]
    assert model["average_precision"] == pytest.approx(average_precision_score(y_true, scores["model"]))
    assert model["brier"] == pytest.approx(brier_score_loss(y_true, expit(scores["model"])))
    fold = np.array([e.fold for e in pool])
    rule = ThresholdRule.from_section(vars(CHOSEN.select))
    assert model["f1"] == pytest.approx(f1_score(y_true, predictions(scores["model"], y_true, fold, rule).y_pred))
    assert model["f1_low"] < model["f1"] < model["f1_high"]
    assert report["best_cheap"] == {"name": "combined_cheap"}
    # Independent signals add up: the truth is a shift of sqrt(1 + 1) against sqrt(1 + .25).
    ahead = report["ahead"]["combined"]
    assert 0 < ahead["average_precision_low"] < ahead["average_precision"] < ahead["average_precision_high"] < 0.1
    assert ahead["average_precision"] == pytest.approx(
        report["combined"]["average_precision"] - report["combined_cheap"]["average_precision"]
    )


def test_the_sum_of_independent_log_odds_needs_no_weights():
    """Each part is calibrated and they are independent, so the sum's calibration is the identity."""
    pool, y_true, scores = simulated(rows=20_000, seed=3)
    total = scores["model"] + scores["baseline"]
    fold = np.array([e.fold for e in pool])
    assert recalibrated(total, y_true, fold) == pytest.approx(total, rel=0.05, abs=0.1)


def test_systems_without_scores_are_left_out():
    pool, _, scores = simulated(rows=200)
    report = compare_out_of_fold(pool, {"baseline": scores["baseline"]}, {"a:0", "a:1", "a:2", "a:3"}, CHOSEN)
    assert report.keys() == {"size", "always_fraud", "baseline", "best_cheap", "ahead"}
    assert report["ahead"] == {}


def test_the_best_cheap_system_has_the_highest_average_precision():
    y_true = np.array([False, True, False, True])
    scores = {
        "model": np.array([0.0, 9, 0, 9]),
        "baseline": np.array([1.0, 0, 0, 2]),
        "probe": np.array([1.0, 2, 0, 2]),
    }
    assert best_cheap(scores, y_true) == "probe"
