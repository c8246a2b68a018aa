import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn import metrics as sklearn_metrics
from sklearn.linear_model import LogisticRegression

from stages.metrics import (
    SLOPES,
    Calibration,
    ThresholdRule,
    calibration_bins,
    choose_threshold,
    choose_thresholds,
    decision_metrics,
    fit_calibration,
    fit_calibrations,
    metrics_at_fraction,
    probability_metrics,
    score_metrics,
    squared_calibration_error,
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
    assert ours["log_loss"] == pytest.approx(sklearn_metrics.log_loss(y_true, y_score))
    for percent in (95, 98, 99):
        flagged = [y_score >= t for t in y_score]
        good = [np.mean(f[y_true]) for f in flagged if np.mean(y_true[f]) >= percent / 100]
        assert ours[f"recall_at_precision_{percent}"] == pytest.approx(max(good, default=0))


@given(both)
@settings(max_examples=200, deadline=None)
def test_no_other_threshold_has_a_higher_f1(rows):
    y_true, y_score = map(np.array, zip(*rows, strict=True))
    chosen = decision_metrics(y_true, y_score >= choose_threshold(y_true, y_score, rule("max_f1_on_valid")))["f1"]
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


@given(both, st.integers(1, 4), st.sampled_from(["max_f1_on_valid", "precision_at_least", "min_cost"]))
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
    if name == "max_f1_on_valid":
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
    y_true = rng.random(200_000) < expit(true_log_odds)
    overconfident = 3 * true_log_odds
    found = fit_calibration(y_true, overconfident, "temperature")
    assert (found.temperature, found.offset) == (pytest.approx(3, rel=0.02), 0)
    before = probability_metrics(y_true, expit(overconfident))["calibration_error"]
    after = probability_metrics(y_true, found.probability(overconfident))["calibration_error"]
    assert before > 0.1
    assert after < 0.005


def test_platt_finds_the_line_from_scores_to_log_odds():
    rng = np.random.default_rng(0)
    scores = rng.normal(3, 2, 200_000)
    y_true = rng.random(200_000) < expit(0.7 * scores - 2)
    found = fit_calibration(y_true, scores, "platt")
    assert (found.slope, found.offset) == (pytest.approx(0.7, rel=0.02), pytest.approx(-2, rel=0.02))


@pytest.mark.parametrize("scores", ["one for all", "one for each resample"])
def test_calibrations_are_scikit_learns_logistic_regression_on_smoothed_labels(scores):
    rng = np.random.default_rng(1)
    y_true = rng.random(120) < 0.3
    drawn = rng.normal(size=(4, 120)) + 2 * y_true - 5
    log_odds = drawn[0] if scores == "one for all" else drawn
    weights = rng.integers(0, 4, (4, 120)).astype(float)
    slopes, offsets = fit_calibrations(y_true, log_odds, "platt", weights)
    temperatures, zeros = fit_calibrations(y_true, log_odds + 5, "temperature", weights)
    assert not zeros.any()
    for row, weight in enumerate(weights):
        x = np.broadcast_to(log_odds, (4, 120))[row][:, None]
        fraud, harmless = weight[y_true].sum(), weight[~y_true].sum()
        target = np.where(y_true, (fraud + 1) / (fraud + 2), 1 / (harmless + 2))  # Platt 1999
        twice = [np.ones(120, dtype=bool), np.zeros(120, dtype=bool)]
        parts = np.concatenate([weight * target, weight * (1 - target)])
        plain = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
        plain.fit(np.concatenate([x, x]), np.concatenate(twice), parts)
        assert (slopes[row], offsets[row]) == (
            pytest.approx(plain.coef_[0, 0], rel=1e-4),
            pytest.approx(plain.intercept_[0], rel=1e-4),
        )
        plain = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000, fit_intercept=False)
        assert temperatures[row] == pytest.approx(plain.fit(x + 5, y_true, weight).coef_[0, 0], rel=1e-4)


def test_classes_without_overlap_have_finite_slopes():
    scores, y_true = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True])
    platt = fit_calibration(y_true, scores, "platt")
    assert 0.5 < platt.slope < 10
    assert platt.offset == pytest.approx(0, abs=1e-9)
    assert fit_calibration(y_true, scores, "temperature").slope == pytest.approx(SLOPES[1])


@pytest.mark.parametrize("method", ["platt", "temperature"])
@pytest.mark.parametrize("scores", [[2.0, 1.0, -1.0, -2.0], [1.0, 1.0, 1.0, 1.0]])
def test_scores_no_better_than_chance_keep_their_order(method, scores):
    """A slope below 0 would call the likeliest fraud harmless."""
    found = fit_calibration([False, False, True, True], np.array(scores), method)
    assert found.slope >= SLOPES[0]
    assert np.isfinite(found.offset)
    if scores[0] > scores[-1]:
        assert found.at_bound
        assert method == "temperature" or found.probability(np.array(scores)).mean() == pytest.approx(0.5)


@given(st.lists(st.tuples(st.booleans(), st.floats(-50, 50)), min_size=2, max_size=30), st.sampled_from(["platt"]))
@settings(max_examples=200, deadline=None)
def test_a_record_of_the_temperature_gives_the_same_calibration(rows, method):
    y_true, scores = map(np.array, zip(*rows, strict=True))
    found = fit_calibration(y_true, scores, method)
    assert np.isfinite([found.slope, found.offset]).all()
    assert Calibration(1 / found.temperature, found.offset) == found


def test_calibration_error_of_a_known_gap():
    """Mean squares: 0.2^2 and 0, less what chance adds: 0.7 * 0.3 / 99 and 0.1 * 0.9 / 99."""
    probability = np.repeat([0.9, 0.1], 100)
    y_true = np.concatenate([np.arange(100) < 70, np.arange(100) < 10])
    square = (0.2**2 - 0.7 * 0.3 / 99 + 0 - 0.1 * 0.9 / 99) / 2
    assert probability_metrics(y_true, probability)["calibration_error"] == pytest.approx(square**0.5)


def test_a_calibrated_model_has_no_calibration_error_in_the_mean():
    """The mean gap of plain bins was 0.11 on 131 texts."""
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(400):
        probability = expit(rng.normal(0, 1.5, 131))
        y_true = rng.random(131) < probability
        bins = calibration_bins(probability)
        squares.append(squared_calibration_error(y_true, probability, np.ones((1, 131)), bins)[0])
    assert np.mean(squares) == pytest.approx(0, abs=3 * np.std(squares) / 20)


def test_equal_probabilities_are_in_one_bin_and_others_in_equal_ones():
    assert np.bincount(calibration_bins(np.linspace(0, 1, 100))).tolist() == [10] * 10
    assert len(set(calibration_bins(np.repeat(0.5, 30)))) == 1


def best_f1_threshold(fraud: float) -> float:
    """The probability from which F1 is highest for scores N(1, 1) of fraud and N(-1, 1) of harmless texts.

    A score s has the odds fraud / (1 - fraud) * exp(2 s).
    """
    cut = np.linspace(-4, 4, 80_001)
    recall, alarms = norm.sf(cut - 1), norm.sf(cut + 1)
    f1 = 2 * fraud * recall / (fraud * (1 + recall) + (1 - fraud) * alarms)
    return float(expit(logit(fraud) + 2 * cut[np.argmax(f1)]))


@pytest.mark.parametrize("share", [0.5, 0.2])
@pytest.mark.parametrize("wanted", [None, 0.5, 0.05])
def test_half_of_the_best_f1_is_the_threshold_of_the_best_f1(share, wanted):
    """Known optimum, at the share of fraud of the texts and at another one, where odds are multiplied."""
    rng = np.random.default_rng(0)
    y_true = rng.random(400_000) < share
    scores = rng.normal(2.0 * y_true - 1, 1)
    probability = expit(logit(share) + 2 * scores)
    found = choose_threshold(y_true, probability, rule("max_f1", fraud_fraction=wanted))
    at = wanted or share
    expected = expit(logit(best_f1_threshold(at)) - logit(at) + logit(share))
    assert logit(found) == pytest.approx(logit(expected), abs=0.02)


def test_half_of_the_best_f1_moves_less_with_the_texts_than_the_best_f1_on_them():
    rng = np.random.default_rng(0)
    spread = {}
    for name in ("max_f1", "max_f1_on_valid"):
        found = []
        for _ in range(100):
            y_true = rng.random(96) < 0.5
            scores = rng.normal(4.0 * y_true - 2, 2)
            calibration = fit_calibration(y_true, scores, "platt")
            cut = logit(choose_threshold(y_true, calibration.probability(scores), rule(name)))
            found.append(1 - norm.cdf((cut - calibration.offset) / calibration.slope / 2))  # share of texts flagged
        spread[name] = np.std(found)
    assert spread["max_f1"] < 0.7 * spread["max_f1_on_valid"]


@given(
    both,
    st.sampled_from(["max_f1", "max_f1_on_valid", "precision_at_least", "min_cost", "fixed"]),
    st.sampled_from([None, 0.2]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=300, deadline=None)
def test_thresholds_under_weights_are_those_of_repeated_rows(rows, name, fraud_fraction, random):
    y_true, y_score = map(np.array, zip(*rows, strict=True))
    weights = np.array([[random.randint(0, 3) for _ in rows] for _ in range(3)])
    assume(weights.sum(axis=1).all())
    chosen = rule(name, 0.75, fraud_fraction=fraud_fraction)
    found = choose_thresholds(y_true, y_score, chosen, weights.astype(float))
    for threshold, weight in zip(found, weights, strict=True):
        times = np.repeat(np.arange(len(rows)), weight)
        if np.isinf(threshold):
            with pytest.raises(ValueError, match="no threshold reaches"):
                choose_threshold(y_true[times], y_score[times], chosen)
        else:
            assert threshold == pytest.approx(choose_threshold(y_true[times], y_score[times], chosen), rel=1e-9)


def test_the_fixed_threshold_is_one_half():
    assert choose_threshold([True, False], [0.9, 0.8], rule("fixed")) == 0.5


def test_no_rows_have_no_metrics():
    assert decision_metrics([], [])["f1"] == 0


@pytest.mark.parametrize("name", ["max_f1_on_valid", "precision_at_least", "min_cost"])
@pytest.mark.parametrize("harmless", [1 - 2**-52, 0.25, np.nextafter(1e-300, 0), 0.0])
def test_a_threshold_separates_neighbouring_numbers(name, harmless):
    """Midway between them lies one of the two: the probabilities of a sure model are as near to 1."""
    fraud = np.nextafter(harmless, 1)
    threshold = choose_threshold(np.array([False, True]), np.array([harmless, fraud]), rule(name))
    assert harmless < threshold <= fraud
