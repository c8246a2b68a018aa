import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from stages.metrics import (
    ThresholdRule,
    calibrated,
    choose_threshold,
    decision_metrics,
    fit_temperature,
    metrics_at_fraction,
    probability_metrics,
    score_metrics,
)

scored = st.lists(st.tuples(st.booleans(), st.sampled_from(np.linspace(0, 1, 21).tolist())), min_size=4, max_size=60)
both = scored.filter(lambda rows: len({label for label, _ in rows}) == 2)


def rule(threshold, min_precision=0.9, cost=None, fraud_fraction=None):
    cost = cost or {"fp": 1, "fn": 5}
    return ThresholdRule(threshold, min_precision, cost["fp"], cost["fn"], fraud_fraction)


@given(both, st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_metrics_are_scikit_learns(rows, threshold):
    y_true, y_score = map(np.array, zip(*rows, strict=True))
    ours = score_metrics(y_true, y_score, threshold)
    y_pred = y_score >= threshold
    assert ours["tp"] == np.sum(y_true & y_pred)
    assert ours["fp"] == np.sum(~y_true & y_pred)
    assert ours["fn"] == np.sum(y_true & ~y_pred)
    assert ours["tn"] == np.sum(~y_true & ~y_pred)
    assert ours["precision"] == sklearn_metrics.precision_score(y_true, y_pred, zero_division=0)
    assert ours["recall"] == sklearn_metrics.recall_score(y_true, y_pred)
    assert ours["f1"] == pytest.approx(sklearn_metrics.f1_score(y_true, y_pred))
    assert ours["average_precision"] == sklearn_metrics.average_precision_score(y_true, y_score)
    assert ours["roc_auc"] == sklearn_metrics.roc_auc_score(y_true, y_score)
    assert ours["brier"] == pytest.approx(np.mean((y_true - y_score) ** 2))
    for percent in (95, 98, 99):
        flagged = [y_score >= t for t in y_score]
        good = [np.mean(f[y_true]) for f in flagged if np.mean(y_true[f]) >= percent / 100]
        assert ours[f"recall_at_precision_{percent}"] == pytest.approx(max(good, default=0))


@given(both)
@settings(max_examples=200, deadline=None)
def test_no_other_threshold_has_a_higher_f1(rows):
    y_true, y_score = map(np.array, zip(*rows, strict=True))
    chosen = decision_metrics(y_true, y_score >= choose_threshold(y_true, y_score, rule("max_f1")))["f1"]
    others = [decision_metrics(y_true, y_score >= t)["f1"] for t in [*y_score, 2.0]]
    assert chosen == pytest.approx(max(others))


@given(both, st.sampled_from([0.5, 0.75, 0.9]))
@settings(max_examples=200, deadline=None)
def test_no_other_threshold_of_that_precision_has_a_higher_recall(rows, least):
    y_true, y_score = map(np.array, zip(*rows, strict=True))
    possible = [decision_metrics(y_true, y_score >= t) for t in y_score]
    possible = [m["recall"] for m in possible if m["precision"] >= least]
    if not possible:
        with pytest.raises(ValueError, match=f"no threshold reaches select.min_precision {least}"):
            choose_threshold(y_true, y_score, rule("precision_at_least", least))
        return
    chosen = decision_metrics(y_true, y_score >= choose_threshold(y_true, y_score, rule("precision_at_least", least)))
    assert chosen["precision"] >= least
    assert chosen["recall"] == max(possible)


@given(both, st.sampled_from([(1, 5), (5, 1), (1, 1), (1, 0.1)]))
@settings(max_examples=200, deadline=None)
def test_no_other_threshold_costs_less(rows, cost):
    y_true, y_score = map(np.array, zip(*rows, strict=True))
    false_alarm, miss = cost

    def total(threshold):
        decided = decision_metrics(y_true, y_score >= threshold)
        return false_alarm * decided["fp"] + miss * decided["fn"]

    chosen = choose_threshold(y_true, y_score, rule("min_cost", cost={"fp": false_alarm, "fn": miss}))
    assert total(chosen) == pytest.approx(min(total(t) for t in [*y_score, 2.0]))


@given(both, st.integers(1, 4), st.sampled_from(["max_f1", "precision_at_least", "min_cost"]))
@settings(max_examples=200, deadline=None)
def test_a_fraud_fraction_weighs_harmless_rows_as_if_they_were_repeated(rows, times, name):
    y_true, y_score = map(np.array, zip(*rows, strict=True))
    repeats = np.where(y_true, 1, times)
    more, more_score = np.repeat(y_true, repeats), np.repeat(y_score, repeats)
    assume(name != "precision_at_least" or more.mean() >= 0.05)  # else no threshold may reach it, which is an error
    weighted = rule(name, 0.05, fraud_fraction=float(more.mean()))
    plain = rule(name, 0.05)
    threshold = choose_threshold(more, more_score, plain)
    decided, same = (
        score_metrics(more, more_score, t) for t in (choose_threshold(y_true, y_score, weighted), threshold)
    )
    if name == "max_f1":
        assert decided["f1"] == pytest.approx(same["f1"])
    elif name == "min_cost":
        assert decided["fp"] + 5 * decided["fn"] == pytest.approx(same["fp"] + 5 * same["fn"])
    else:
        assert decided["recall"] == same["recall"]
    told = metrics_at_fraction(y_true, y_score, threshold, weighted.fraud_fraction, y_score)
    for metric in ("precision", "recall", "f1", "average_precision"):
        assert told[metric] == pytest.approx(same[metric])
    untouched = metrics_at_fraction(y_true, y_score, threshold, None, y_score)
    assert untouched["precision"] == score_metrics(y_true, y_score, threshold)["precision"]
    assert untouched["fraud_fraction"] == y_true.mean()


def test_the_temperature_of_overconfident_scores_is_found_and_calibrates_them():
    rng = np.random.default_rng(0)
    true_log_odds = rng.normal(0, 2, 200_000)
    y_true = rng.random(200_000) < 1 / (1 + np.exp(-true_log_odds))
    overconfident = 3 * true_log_odds
    assert fit_temperature(y_true, overconfident) == pytest.approx(3, rel=0.02)
    before = probability_metrics(y_true, calibrated(overconfident, 1))["calibration_error"]
    after = probability_metrics(y_true, calibrated(overconfident, 3))["calibration_error"]
    assert before > 0.1
    assert after < 0.005


def test_calibration_error_of_a_known_gap():
    """100 texts at 0.9 of which 70 are fraud, and 100 at 0.1 of which 10 are: gaps 0.2 and 0, the mean 0.1."""
    probability = np.repeat([0.9, 0.1], 100)
    y_true = np.concatenate([np.arange(100) < 70, np.arange(100) < 10])
    assert probability_metrics(y_true, probability)["calibration_error"] == pytest.approx(0.1)


def test_the_fixed_threshold_is_one_half():
    assert choose_threshold([True, False], [0.9, 0.8], rule("fixed")) == 0.5


def test_no_rows_have_no_metrics():
    assert decision_metrics([], [])["f1"] == 0


@pytest.mark.parametrize("name", ["max_f1", "precision_at_least", "min_cost"])
@pytest.mark.parametrize("harmless", [1 - 2**-52, 0.25, np.nextafter(1e-300, 0), 0.0])
def test_a_threshold_separates_neighbouring_numbers(name, harmless):
    """Midway between them lies one of the two: the probabilities of a sure model are as near to 1."""
    fraud = np.nextafter(harmless, 1)
    threshold = choose_threshold(np.array([False, True]), np.array([harmless, fraud]), rule(name))
    assert harmless < threshold <= fraud
