"""Intervals of metrics over units: rows that belong together are drawn, or left out, together.

They are whole: what was chosen on valid (calibration, threshold, the parts' share in a combination) is chosen anew in
resamples of valid's units. Average precision, ROC AUC, differences in both, and the calibration error have a jackknife
over the units, with Student's t (a metric itself on the logit). All else has the percentile bootstrap, and the
jackknife if there are few units. Systems are compared on the same resamples (paired), so what is hard for both cancels
out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit, logit
from scipy.stats import binomtest, t

from stages.evaluate.choices import sum_of_parts
from stages.evaluate.predictors import Predictions, scores_of
from stages.metrics import PRECISIONS, calibration_bins, squared_calibration_error
from stages.units import effective_units, jackknife_variance, left_out, resampled_weights

LEVEL = 95  # percent of the resamples that an interval holds
FEWEST_UNITS = 5  # fewer say nothing, so there are no intervals
BOOTSTRAP_UNITS = 20  # the percentile bootstrap covers too little below
VALID_SAMPLES = 200  # resamples of valid that the jackknife's variance takes in
JACKKNIFED = ("average_precision", "roc_auc", "calibration_error", "calibration_error_before")
RATES = {"average_precision", "roc_auc", "precision", "recall", "f1", "brier", "brier_before"}  # between 0 and 1
RATES |= {f"recall_at_precision_{percent}" for percent in PRECISIONS}

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Resamples:
    """Metrics of each system in resamples: system, metric, float of shape (samples,).

    Attributes:
        both: units of valid and of the set are drawn, for percentiles.
        without: a unit of the set, or a group of them, is left out, for the jackknife.
        valid: units of valid are drawn, and the set is as it is.
        degrees: of freedom of Student's t.
        units: number of units of the set.
    """

    both: dict[str, Values] = field(default_factory=dict)
    without: dict[str, Values] = field(default_factory=dict)
    valid: dict[str, Values] = field(default_factory=dict)
    degrees: float = 1.0
    units: int = 0

    def interval(self, system: str, metric: str, value: float, less: str | None = None) -> tuple[float, float] | None:
        """The interval of a metric, or of the difference to another system's; None if it says nothing.

        Args:
            system, metric: names.
            value: the metric, or the difference, on the rows as they are.
            less: the other system.
        """
        if self.units < FEWEST_UNITS:
            return None
        if self.units >= BOOTSTRAP_UNITS and metric not in JACKKNIFED:
            bounds = interval(difference(self.both, system, metric, less))
            if less or not bounds or bounds[0] < bounds[1] or metric not in RATES:
                return bounds
            return on_the_logit(value, 0.0, self.degrees, self.units)
        without, valid = difference(self.without, system, metric, less), difference(self.valid, system, metric, less)
        spread = standard_error(without, valid)
        if not np.isfinite(spread):
            return None
        if less or metric not in RATES:
            return around(value, spread, self.degrees, metric)
        return on_the_logit(value, spread, self.degrees, self.units)


def difference(values: dict[str, Values], system: str, metric: str, less: str | None) -> np.ndarray:
    """A metric in the resamples, shape (samples,), less another system's if there is one."""
    return values[system][metric] - (values[less][metric] if less else 0)


def resample(
    predictions: dict[str, Predictions], y_true: np.ndarray, units: np.ndarray, samples: int, seed: int = 0
) -> Resamples:
    """The metrics of each system in all resamples that the intervals need.

    Args:
        predictions: by system, on the same n_rows rows of both classes.
        y_true: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        samples: number of resamples, that of the systems' valid.
        seed: of the random draws.
    """
    count = len(np.unique(units))
    if count < FEWEST_UNITS:
        return Resamples(units=count)
    both = resampled_weights(units, samples, seed) if count >= BOOTSTRAP_UNITS else iter(())
    few = slice(0, min(VALID_SAMPLES, samples))
    return Resamples(
        both=collect(predictions, y_true, both),
        without=collect(predictions, y_true, ((None, weights) for weights in left_out(units, seed))),
        valid=collect(predictions, y_true, [(few, np.ones((1, len(y_true))))]),
        degrees=effective_units(units) - 1,
        units=count,
    )


def collect(predictions: dict[str, Predictions], y_true: np.ndarray, blocks: Iterator | list) -> dict[str, Values]:
    """`weighted_metrics` of each system over blocks of resamples of valid (None: as it is) and row weights."""
    found: dict[str, list[Values]] = {system: [] for system in predictions}
    for part, weights in blocks:
        for system, output in predictions.items():
            found[system].append(weighted_metrics(output, y_true, weights, part))
    return {
        system: {metric: np.concatenate([np.atleast_1d(each[metric]) for each in parts]) for metric in parts[0]}
        for system, parts in found.items()
        if parts
    }


def resampled_scores(predictions: Predictions, part: slice | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores to rank by and probabilities, both (1 or n_block, n_rows), and thresholds, (1 or n_block, 1).

    part: which resamples of valid; None is valid as it is.
    """
    system = predictions.system
    if part is None or system is None:
        order = predictions.y_score if predictions.log_odds is None else predictions.log_odds
        return order[None], predictions.y_score[None], np.array([[predictions.threshold]])
    raw, picks = raw_scores(predictions, part), system.picks
    probability = expit(raw * picks.slope[part, None] + picks.offset[part, None])
    return raw, probability, picks.threshold[part, None]


def raw_scores(predictions: Predictions, part: slice) -> np.ndarray:
    """Scores before calibration, (1, n_rows); of a combination in each resample of valid, (n_block, n_rows)."""
    if not predictions.parts:
        return scores_of(predictions)[None]
    assert predictions.system is not None, "a combination is chosen on valid"
    picks = [each.picks for each in predictions.system.parts]
    scores = [raw_scores(each, part) for each in predictions.parts]
    return sum_of_parts(list(zip(scores, picks, strict=True)), part)


def weighted_metrics(
    predictions: Predictions, y_true: np.ndarray, weights: np.ndarray, part: slice | None = None
) -> Values:
    """`Predictions.metrics` under row weights, each of shape (samples,); NaN where a class has no weight.

    Args:
        predictions: of one system.
        y_true: bool of shape (n_rows,).
        weights: float of shape (samples, n_rows), or (1, n_rows) for all.
        part: the resamples of valid whose choices are taken; None takes those in use.

    The calibration error is squared here, since without the root its estimate has no bias.
    """
    order, probability, threshold = resampled_scores(predictions, part)
    with np.errstate(invalid="ignore", divide="ignore"):
        flagged_rows = weights * (probability >= threshold)
        tp, flagged, positive = flagged_rows @ y_true, flagged_rows.sum(axis=1), weights @ y_true
        total = weights.sum(axis=1)
        metrics = {
            "precision": ratio(tp, flagged),
            "recall": ratio(tp, positive),
            "f1": ratio(2 * tp, flagged + positive),
        }
        both = (positive > 0) & (positive < total)
        if predictions.log_odds is not None:
            metrics |= curve_metrics(order, y_true, weights)
            metrics |= weighted_probability_metrics(predictions.y_score, probability, y_true, weights, "")
            before = predictions.uncalibrated
            metrics |= weighted_probability_metrics(before, before[None], y_true, weights, "_before")
    return {name: np.where(both, values, np.nan) for name, values in metrics.items()}


def weighted_probability_metrics(
    binned: np.ndarray, probability: np.ndarray, y_true: np.ndarray, weights: np.ndarray, suffix: str
) -> Values:
    """Brier score, log loss and squared calibration error, each of shape (samples,).

    Args:
        binned: probabilities by whose order rows are put into bins, shape (n_rows,).
        probability: float of shape (1 or samples, n_rows).
        y_true: bool of shape (n_rows,).
        weights: float of shape (1 or samples, n_rows).
        suffix: of the names.
    """
    total = weights.sum(axis=1)
    right = np.where(y_true, probability, 1 - probability).clip(np.finfo(float).eps)
    return {
        f"brier{suffix}": (weights * (1 - right) ** 2).sum(axis=1) / total,
        f"log_loss{suffix}": -(weights * np.log(right)).sum(axis=1) / total,
        f"calibration_error{suffix}": squared_calibration_error(y_true, probability, weights, calibration_bins(binned)),
    }


def curve_metrics(y_score: np.ndarray, y_true: np.ndarray, weights: np.ndarray) -> Values:
    """Metrics over all thresholds, each of shape (samples,). Every score is a threshold; equal scores are flagged
    together.

    Args:
        y_score: float of shape (1 or samples, n_rows).
        y_true: bool of shape (n_rows,).
        weights: float of shape (1 or samples, n_rows).
    """
    order = np.argsort(-y_score, axis=1, kind="stable")
    score, label = np.take_along_axis(y_score, order, axis=1), y_true[order]
    ordered = weights[:, order[0]] if len(order) == 1 else np.take_along_axis(weights, order, axis=1)
    positive, negative = ordered * label, ordered * ~label
    tp, fp = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = np.nan_to_num(tp / (tp + fp)), tp / tp[:, -1:]
    ends = np.diff(score, axis=1, append=-np.inf) != 0
    at_end, before = precision, tp - positive / 2
    if not ends.all():
        index = np.broadcast_to(np.arange(score.shape[1]), score.shape)
        last = np.minimum.accumulate(np.where(ends, index, index.max())[:, ::-1], axis=1)[:, ::-1]
        first = np.maximum.accumulate(np.where(np.roll(ends, 1, axis=1), index, 0), axis=1)
        at_end = np.take_along_axis(precision, last, axis=1)
        before = (np.take_along_axis(tp - positive, first, axis=1) + np.take_along_axis(tp, last, axis=1)) / 2
    return {
        "average_precision": (positive * at_end).sum(axis=1) / tp[:, -1],
        "roc_auc": (negative * before).sum(axis=1) / (tp[:, -1] * fp[:, -1]),
        **{
            f"recall_at_precision_{percent}": np.where(ends & (precision >= percent / 100), recall, 0).max(axis=1)
            for percent in PRECISIONS
        },
    }


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / whole, 0.0)


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The bounds between which LEVEL percent of the resamples lie; None if no resample had both classes."""
    if np.isnan(values).all():
        return None
    low, high = np.nanpercentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def standard_error(without: np.ndarray, valid: np.ndarray) -> float:
    """Root of the sum of two variances: the jackknife's over the set's units, and over resamples of valid.

    NaN if a class has no row without one of the units.
    """
    drawn = valid[np.isfinite(valid)]
    return float(np.sqrt(jackknife_variance(without) + (drawn.var() if len(drawn) > 1 else 0.0)))


def around(value: float, spread: float, degrees: float, metric: str) -> tuple[float, float]:
    """A symmetric interval by Student's t. That of the calibration error is one of its square.

    Args:
        value: the estimate.
        spread: its standard error, of the square for a calibration error.
        degrees: of freedom.
        metric: its name.
    """
    half = float(t.ppf((100 + LEVEL) / 200, max(degrees, 1.0))) * spread
    if not metric.startswith("calibration_error"):
        return value - half, value + half
    low, high = np.sqrt(np.clip([value**2 - half, value**2 + half], 0, None))
    return float(low), float(high)


def on_the_logit(value: float, spread: float, degrees: float, units: int) -> tuple[float, float]:
    """An interval by Student's t on the logit of a number between 0 and 1.

    A number that is 0 or 1, or the same without any unit, would claim certainty. Its interval is Wilson's (1927).

    Args:
        value: the estimate.
        spread: its standard error.
        degrees: of freedom.
        units: number of units.
    """
    if spread == 0 or not 0 < value < 1:
        bounds = binomtest(round(value * units), units).proportion_ci(LEVEL / 100, method="wilson")
        return min(value, float(bounds.low)), max(value, float(bounds.high))
    half = float(t.ppf((100 + LEVEL) / 200, max(degrees, 1.0))) * spread / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half, half]))
    return float(low), float(high)


def rate_interval(happened: np.ndarray, units: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The interval of the share of rows in which something happened, by resampling units, or by jackknife if few.

    If it happened in no row or in every row, all resamples are equal and would claim certainty. The interval is then
    Wilson's (1927) for that many units.

    Args:
        happened: bool of shape (1 + samples, n_rows): as it is, and in resamples of valid.
        units: int of shape (n_rows,), the unit of each row.
        seed: of the random draws.
    """
    value, count = float(happened[0].mean()), len(np.unique(units))
    if happened.all() or not happened.any():
        return on_the_logit(value, 0.0, 1.0, count)
    if count < BOOTSTRAP_UNITS:
        without = np.concatenate([weights @ happened[0] / weights.sum(axis=1) for weights in left_out(units, seed)])
        spread = standard_error(without, happened[1:].mean(axis=1))
        return on_the_logit(value, spread, effective_units(units) - 1, count)
    bounds = interval(
        np.concatenate(
            [
                (weights * happened[1:][part]).sum(axis=1) / weights.sum(axis=1)
                for part, weights in resampled_weights(units, len(happened) - 1, seed)
            ]
        )
    )
    assert bounds is not None, "every resample has rows"
    return bounds


def with_intervals(metrics: Mapping[str, float], resamples: Resamples, system: str, less: str | None = None) -> dict:
    """The metrics, with NAME_low and NAME_high beside each metric NAME that has an interval.

    Args:
        metrics: of a system, or their differences to another one.
        resamples: of all systems.
        system: its name.
        less: the other system's.
    """
    known = resamples.without.get(system, {})
    bounds = {name: resamples.interval(system, name, value, less) for name, value in metrics.items() if name in known}
    low = {f"{name}_low": pair[0] for name, pair in bounds.items() if pair}
    high = {f"{name}_high": pair[1] for name, pair in bounds.items() if pair}
    return {**metrics, **low, **high}
