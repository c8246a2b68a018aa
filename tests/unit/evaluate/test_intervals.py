"""Intervals are those of a plain bootstrap or jackknife over units, and weighted metrics scikit-learn's."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from stages.evaluate.choices import Valid, choose_on_valid, combine_on_valid
from stages.evaluate.compare import compare_rows
from stages.evaluate.intervals import curve_metrics, interval, on_the_logit, rate_interval, resample, weighted_metrics
from stages.evaluate.predictors import combined, scored
from stages.metrics import ThresholdRule, choose_threshold, fit_calibration
from stages.text.example import Example
from stages.units import effective_units, resampled_weights
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
        assert ours["log_loss"][sample] == pytest.approx(log_loss(y_true, system.y_score, **chosen))
        repeated = np.repeat(np.arange(300), weight.astype(int))
        plain = system.rows(repeated).metrics(y_true[repeated])
        for name in ours.keys() - {"calibration_error", "calibration_error_before"}:
            assert ours[name][sample] == pytest.approx(plain[name]), name


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_curves_of_a_score_for_each_resample_are_scikit_learns(digits):
    """With many equal scores, with a few, and with none."""
    rng = np.random.default_rng(0)
    y_true = rng.random(80) < 0.4
    scores, weights = np.round(rng.normal(size=(6, 80)) + y_true, digits), rng.integers(0, 3, (6, 80)).astype(float)
    found = curve_metrics(scores, y_true, weights)
    for row, (score, weight) in enumerate(zip(scores, weights, strict=True)):
        expected = average_precision_score(y_true, score, sample_weight=weight)
        assert found["average_precision"][row] == pytest.approx(expected)
        assert found["roc_auc"][row] == pytest.approx(roc_auc_score(y_true, score, sample_weight=weight))


def test_decisions_have_the_intervals_of_a_plain_bootstrap_over_units():
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(40), rng.integers(1, 8, 40))
    y_true = (units % 3 == 0) ^ (rng.random(len(units)) < 0.1)
    system, other = make_system(rng, y_true, 0.8), make_system(rng, y_true, 0.5)
    found = resample({"model": system, "baseline": other}, y_true, units, 1500)
    plain = defaultdict(list)
    rows_of = [np.flatnonzero(units == unit) for unit in range(40)]
    for _ in range(1500):
        rows = np.concatenate([rows_of[unit] for unit in rng.integers(0, 40, 40)])
        one, two = (average_precision_score(y_true[rows], s.y_score[rows]) for s in (system, other))
        plain["difference"].append(one - two)
        truth, flagged = y_true[rows], system.y_pred[rows]
        plain["f1"].append(2 * np.sum(truth & flagged) / (truth.sum() + flagged.sum()))
    expected = {name: np.percentile(values, [2.5, 97.5]) for name, values in plain.items()}
    assert found.interval("model", "f1", 0.7) == pytest.approx(expected["f1"], abs=0.02)
    assert np.percentile(
        found.both["model"]["average_precision"] - found.both["baseline"]["average_precision"], [2.5, 97.5]
    ) == pytest.approx(expected["difference"], abs=0.02)
    alone = resample({"model": system}, y_true, np.arange(len(units)), 1500).both["model"]["average_precision"]
    as_units = found.both["model"]["average_precision"]
    assert np.std(alone) < 0.9 * np.std(as_units)  # rows as if independent: too sure


def test_average_precision_has_the_jackknife_on_the_logit():
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(30), rng.integers(1, 5, 30))
    y_true = rng.random(len(units)) < 0.4
    system = make_system(rng, y_true, 0.8)
    value = average_precision_score(y_true, system.log_odds)
    without = [average_precision_score(y_true[units != u], system.log_odds[units != u]) for u in range(30)]
    spread = np.sqrt(29 / 30 * np.sum((without - np.mean(without)) ** 2)) / (value * (1 - value))
    half = t.ppf(0.975, effective_units(units) - 1) * spread
    other = make_system(rng, y_true, 0.5)
    found = resample({"model": system, "baseline": other}, y_true, units, 10)
    bounds = found.interval("model", "average_precision", value)
    assert bounds == pytest.approx(expit([logit(value) - half, logit(value) + half]))
    theirs = [average_precision_score(y_true[units != u], other.log_odds[units != u]) for u in range(30)]
    without = np.subtract(without, theirs)
    half = t.ppf(0.975, effective_units(units) - 1) * np.sqrt(29 / 30 * np.sum((without - np.mean(without)) ** 2))
    paired = found.interval("model", "average_precision", 0.1, "baseline")
    assert paired == pytest.approx((0.1 - half, 0.1 + half))


def split(rng, units, strength):
    """Labels, units and scores of two rows a unit."""
    unit = np.repeat(np.arange(units), 2)
    y_true = rng.random(2 * units) < 0.5
    noise = 0.6 * rng.normal(size=units)[unit] + 0.8 * rng.normal(size=2 * units)
    return y_true, unit, 2 * (strength * np.where(y_true, 1, -1) + noise)


def ladder(rule="max_f1", samples=300, seed=0, valid_units=40, units=60):
    """Three systems on valid and a set: model, baseline, and their combination."""
    rng = np.random.default_rng(seed)
    y_valid, valid_unit, one = split(rng, valid_units, 1.0)
    two = 1.5 * np.where(y_valid, 1, -1) + 2 * rng.normal(size=len(y_valid))
    valid = Valid(y_valid, valid_unit, ThresholdRule(rule, min_precision=0.8), "platt", samples)
    systems = {"model": choose_on_valid(valid, one), "baseline": choose_on_valid(valid, two)}
    y_true, unit, one = split(rng, units, 1.0)
    two = 1.5 * np.where(y_true, 1, -1) + 2 * rng.normal(size=len(y_true))
    found = {"model": scored(systems["model"], one), "baseline": scored(systems["baseline"], two)}
    sums = combine_on_valid((systems["model"], systems["baseline"]))
    return y_true, unit, found | {"combined": combined(sums, (found["model"], found["baseline"]))}


@pytest.mark.parametrize("rule", ["max_f1", "max_f1_on_valid", "precision_at_least", "min_cost", "fixed"])
def test_resamples_choose_anew_on_valid_as_a_plain_loop_does(rule):
    y_true, units, predictions = ladder(rule, samples=6)
    found = resample(predictions, y_true, units, 6)
    valid = predictions["model"].system.valid
    drawn = [next(iter(valid.resamples()))[1], next(resampled_weights(units, 6, 0))[1]]
    for sample, (on_valid, on_test) in enumerate(zip(*drawn, strict=True)):
        rows, tested = (np.repeat(np.arange(len(w)), w.astype(int)) for w in (on_valid, on_test))
        labels, of_part = valid.y_true[rows], []
        for name in ("model", "baseline", "combined"):
            if name == "combined":
                calibrated = [c.log_odds(p.system.log_odds) for c, p in of_part]
                on_rows, on_set = sum(calibrated), sum(c.log_odds(p.log_odds) for c, p in of_part)
            else:
                on_rows, on_set = predictions[name].system.log_odds, predictions[name].log_odds
            calibration = fit_calibration(labels, on_rows[rows], "platt")
            of_part.append((calibration, predictions[name]))
            threshold = choose_threshold(labels, calibration.probability(on_rows[rows]), valid.rule)
            probability, truth = calibration.probability(on_set)[tested], y_true[tested]
            values = {
                "f1": f1_score(truth, probability >= threshold),
                "brier": brier_score_loss(truth, probability),
                "average_precision": average_precision_score(truth, on_set[tested]),
            }
            for metric, value in values.items():
                assert found.both[name][metric][sample] == pytest.approx(value, rel=1e-5), (name, metric)


def test_intervals_that_choose_anew_are_wider():
    y_true, units, predictions = ladder("max_f1_on_valid", valid_units=20)
    whole = resample(predictions, y_true, units, 300)
    fixed = {name: replace(output, system=None, parts=()) for name, output in predictions.items()}
    conditional = resample(fixed, y_true, units, 300)
    assert np.std(whole.both["model"]["f1"]) > 1.1 * np.std(conditional.both["model"]["f1"])
    one, other = (each.both["model"]["average_precision"] for each in (whole, conditional))
    assert one == pytest.approx(other)  # calibration keeps the order
    assert np.std(whole.valid["combined"]["average_precision"]) > 0  # but not that of a sum


def test_a_combination_is_the_sum_of_calibrated_log_odds_and_calibrated_itself():
    y_true, units, predictions = ladder()
    combination, parts = predictions["combined"], [predictions["model"], predictions["baseline"]]
    total = sum(part.system.calibration.log_odds(part.log_odds) for part in parts)
    assert combination.log_odds == pytest.approx(total)
    assert combination.y_score == pytest.approx(combination.system.calibration.probability(total))
    keep = units % 3 == 0
    part = combination.rows(keep)
    assert part.log_odds == pytest.approx(
        sum(
            each.log_odds * each_of.system.calibration.slope + each_of.system.calibration.offset
            for each, each_of in zip(part.parts, parts, strict=True)
        )
    )
    assert compare_rows(examples(y_true, units), predictions, 300)["combined"]["f1_low"] > 0


def examples(y_true, units):
    return [Example("a", bool(label), unit=int(unit)) for label, unit in zip(y_true, units, strict=True)]


@pytest.mark.parametrize(("units", "expected"), [(4, False), (12, True), (60, True)])
def test_few_units_have_the_jackknife_alone_and_fewer_than_five_nothing(units, expected):
    y_true, unit, predictions = ladder(units=units, seed=3)
    found = compare_rows(examples(y_true, unit), predictions, 300)
    assert resample(predictions, y_true, unit, 300).both == {} or units >= 20
    for name in ("average_precision", "f1", "recall", "brier", "log_loss", "calibration_error"):
        block = found["model"]
        assert (f"{name}_low" in block) == expected
        if expected:
            assert block[f"{name}_low"] <= block[name] <= block[f"{name}_high"]
    assert ("f1_low" in found["ahead"]["combined"]) == expected


def test_the_systems_ahead_are_compared_with_the_best_cheap_one():
    y_true, unit, predictions = ladder()
    predictions |= {"probe": replace(predictions["baseline"], log_odds=-predictions["baseline"].log_odds)}
    found = compare_rows(examples(y_true, unit), predictions, 300, "probe")
    assert found["best_cheap"] == {"name": "probe"}
    expected = found["combined"]["average_precision"] - found["probe"]["average_precision"]
    ahead = found["ahead"]["combined"]
    assert ahead["average_precision"] == expected
    assert 0 < ahead["average_precision_low"] < expected < ahead["average_precision_high"]
    assert found["difference"] == compare_rows(examples(y_true, unit), predictions, 300)["ahead"]["model"]


def test_a_perfect_ranking_is_not_certain():
    """Wilson's bound for 20 of 20 units."""
    low, high = on_the_logit(1.0, 0.0, 19, 20)
    assert (low, high) == (pytest.approx(20 / (20 + 1.959964**2)), 1)


def test_the_interval_of_a_rate_is_that_of_a_plain_bootstrap_over_units():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    happened = (units % 4 == 0) & (rng.random(len(units)) < 0.8)
    rows_of = [np.flatnonzero(units == unit) for unit in range(60)]
    plain = [happened[np.concatenate([rows_of[unit] for unit in rng.integers(0, 60, 60)])].mean() for _ in range(4000)]
    found = rate_interval(np.tile(happened, (4001, 1)), units)
    assert found == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.01)


@pytest.mark.parametrize("units", [5, 100])
def test_the_interval_of_a_rate_of_zero_is_wilsons(units):
    """Wilson's bound at 0 of n is z² / (n + z²)."""
    rows = np.repeat(np.arange(units), 3)
    bound = 1.959964**2 / (units + 1.959964**2)
    assert rate_interval(np.zeros((11, 3 * units), dtype=bool), rows) == pytest.approx((0, bound))
    assert rate_interval(np.ones((11, 3 * units), dtype=bool), rows) == pytest.approx((1 - bound, 1))


def test_resamples_of_one_class_do_not_count():
    assert interval(np.array([np.nan, 0.2, 0.4])) == pytest.approx((0.205, 0.395))
    assert interval(np.array([np.nan])) is None
