"""Intervals are those of a plain bootstrap over units, and weighted metrics scikit-learn's."""

from collections import defaultdict

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score

from stages.evaluate.intervals import bootstrap, interval, rate_interval, weighted_metrics
from tests.unit.evaluate.systems import make_system


def test_weighted_metrics_are_scikit_learns():
    rng = np.random.default_rng(0)
    y_true = rng.random(300) < 0.4
    system = make_system(rng, y_true, 0.7)
    weights = rng.integers(0, 4, (5, 300)).astype(float)
    ours = weighted_metrics(system, y_true, weights)
    for sample, weight in enumerate(weights):
        chosen = {"sample_weight": weight}
        assert ours["f1"][sample] == pytest.approx(f1_score(y_true, system.y_pred, **chosen))
        assert ours["average_precision"][sample] == pytest.approx(
            average_precision_score(y_true, system.y_score, **chosen)
        )
        assert ours["roc_auc"][sample] == pytest.approx(roc_auc_score(y_true, system.y_score, **chosen))
        assert ours["brier"][sample] == pytest.approx(brier_score_loss(y_true, system.y_score, **chosen))
        repeated = np.repeat(np.arange(300), weight.astype(int))
        plain = system.rows(repeated).metrics(y_true[repeated])
        for name in ours:
            assert ours[name][sample] == pytest.approx(plain[name]), name


def test_intervals_are_those_of_a_plain_bootstrap_over_units():
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(40), rng.integers(1, 8, 40))
    y_true = (units % 3 == 0) ^ (rng.random(len(units)) < 0.1)
    system, other = make_system(rng, y_true, 0.8), make_system(rng, y_true, 0.5)
    found = bootstrap({"model": system, "baseline": other}, y_true, units, 4000)
    plain = defaultdict(list)
    rows_of = [np.flatnonzero(units == unit) for unit in range(40)]
    for _ in range(4000):
        rows = np.concatenate([rows_of[unit] for unit in rng.integers(0, 40, 40)])
        one, two = (average_precision_score(y_true[rows], s.y_score[rows]) for s in (system, other))
        plain["average_precision"].append(one)
        plain["difference"].append(one - two)
        truth, flagged = y_true[rows], system.y_pred[rows]
        plain["f1"].append(2 * np.sum(truth & flagged) / (truth.sum() + flagged.sum()))
    low, high = interval(found["model"]["average_precision"])
    assert (low, high) == pytest.approx(np.percentile(plain["average_precision"], [2.5, 97.5]), abs=0.02)
    assert interval(found["model"]["f1"]) == pytest.approx(np.percentile(plain["f1"], [2.5, 97.5]), abs=0.02)
    paired = interval(found["model"]["average_precision"] - found["baseline"]["average_precision"])
    assert paired == pytest.approx(np.percentile(plain["difference"], [2.5, 97.5]), abs=0.02)
    alone = bootstrap({"model": system}, y_true, np.arange(len(units)), 4000)["model"]["average_precision"]
    assert np.std(alone) < 0.8 * np.std(found["model"]["average_precision"])  # rows as if independent: too sure


def test_the_interval_of_a_rate_is_that_of_a_plain_bootstrap_over_units():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    happened = (units % 4 == 0) & (rng.random(len(units)) < 0.8)
    rows_of = [np.flatnonzero(units == unit) for unit in range(60)]
    plain = [happened[np.concatenate([rows_of[unit] for unit in rng.integers(0, 60, 60)])].mean() for _ in range(4000)]
    assert rate_interval(happened, units, 4000) == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.01)


@pytest.mark.parametrize("units", [5, 100])
def test_the_interval_of_a_rate_of_zero_is_wilsons(units):
    """Wilson's bound at 0 of n is z² / (n + z²)."""
    rows = np.repeat(np.arange(units), 3)
    bound = 1.959964**2 / (units + 1.959964**2)
    assert rate_interval(np.zeros(3 * units, dtype=bool), rows, 100) == pytest.approx((0, bound))
    assert rate_interval(np.ones(3 * units, dtype=bool), rows, 100) == pytest.approx((1 - bound, 1))
