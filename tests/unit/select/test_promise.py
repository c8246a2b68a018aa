"""What valid promises is computed without the texts that chose, and its bounds are those of the definition."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t
from sklearn.metrics import precision_recall_fscore_support

from stages.metrics import ThresholdRule, choose_threshold, fit_calibration
from stages.select.promise import lower_bounds, promise, unit_folds


def valid_rows(seed, units, strength=1.0):
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(units), 2)
    y_true = rng.random(2 * units) < 0.5
    noise = 0.3**0.5 * rng.normal(size=units)[unit] + 0.7**0.5 * rng.normal(size=2 * units)
    return y_true, unit, 2 * (strength * np.where(y_true, 1, -1) + noise)


@pytest.mark.parametrize("method", ["platt", "temperature"])
@pytest.mark.parametrize("name", ["max_f1", "max_f1_on_valid", "min_cost"])
def test_each_fold_is_judged_by_choices_of_the_others(name, method):
    y_true, units, scores = valid_rows(0, 50)
    rule = ThresholdRule(name)
    fold, y_pred = unit_folds(y_true, units), np.zeros(len(y_true), dtype=bool)
    assert sorted(set(fold)) == list(range(10))
    assert all(len(set(fold[units == unit])) == 1 for unit in units)
    for each in range(10):
        rest = fold != each
        calibration = fit_calibration(y_true[rest], scores[rest], method)
        threshold = choose_threshold(y_true[rest], calibration.probability(scores[rest]), rule)
        y_pred[~rest] = calibration.probability(scores[~rest]) >= threshold
    found = promise(y_true, units, scores, rule, method)
    expected = precision_recall_fscore_support(y_true, y_pred, average="binary")[:3]
    assert [found[key] for key in ("precision", "recall", "f1")] == pytest.approx(expected)
    for key in ("precision", "recall", "f1"):
        assert 0 < found[f"{key}_low"] < found[key]


def test_bounds_are_the_jackknifes_over_units():
    y_true, units, scores = valid_rows(1, 40)
    y_pred = scores > 0
    found = lower_bounds(y_true, y_pred, units, None)
    keep = [units != unit for unit in range(40)]
    recall, without = y_pred[y_true].mean(), [y_pred[rows & y_true].mean() for rows in keep]
    spread = np.sqrt(39 / 40 * np.sum((without - np.mean(without)) ** 2)) / (recall * (1 - recall))
    assert found["recall_low"] == pytest.approx(expit(logit(recall) - t.ppf(0.95, 39) * spread))


def test_a_perfect_valid_promises_no_more_than_its_units_can():
    """Clopper and Pearson (1934): 0.05^(1/n) for n of n units."""
    y_true = np.arange(40) % 2 == 0
    found = lower_bounds(y_true, y_true, np.arange(40), None)
    assert found == pytest.approx(dict.fromkeys(("precision_low", "recall_low", "f1_low"), 0.05 ** (1 / 20)))


def test_a_perfect_precision_at_a_small_share_of_fraud_counts_the_alarms_that_were_not_seen():
    y_true = np.arange(40) % 2 == 0
    found = lower_bounds(y_true, y_true, np.arange(40), 0.02)
    alarms = 1 - 0.05 ** (1 / 20)  # of harmless texts, at most
    assert found["precision_low"] == pytest.approx(0.02 / (0.02 + 0.98 * alarms))


def test_a_share_of_fraud_moves_precision_and_its_bound_alone():
    y_true, units, scores = valid_rows(2, 60)
    plain = lower_bounds(y_true, scores > 0, units, None)
    rare = lower_bounds(y_true, scores > 0, units, 0.05)
    assert rare["recall_low"] == pytest.approx(plain["recall_low"])
    assert rare["precision_low"] < 0.5 * plain["precision_low"]
    promised = promise(y_true, units, scores, ThresholdRule("max_f1", fraud_fraction=0.05), "platt")
    assert promised["precision_low"] < promised["precision"]
    assert promised["fraud_fraction"] == 0.05


def test_a_precision_out_of_reach_raises_no_alarm_in_its_fold():
    y_true, units, scores = valid_rows(3, 30)
    found = promise(y_true, units, -scores, ThresholdRule("precision_at_least", min_precision=0.999), "platt")
    assert found["precision"] == found["recall"] == found["precision_low"] == 0
