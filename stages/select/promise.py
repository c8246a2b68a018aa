"""What the threshold promises: figures on valid that it was not chosen on, with lower bounds."""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

from stages.metrics import (
    CalibrationMethod,
    ThresholdRule,
    choose_thresholds,
    fit_calibrations,
    metrics_at_fraction,
    prior_ratios,
)
from stages.units import effective_units, jackknife_variance, left_out

FOLDS = 10
LEVEL = 0.95  # of each lower bound, one-sided


def promise(
    y_true: np.ndarray, units: np.ndarray, log_odds: np.ndarray, rule: ThresholdRule, method: CalibrationMethod
) -> dict[str, float]:
    """Metrics on valid at rule.fraud_fraction, where each text is judged by choices that did not see its unit.

    Calibration and threshold come from nine folds of valid's units, the decisions are on the tenth. The bounds
    precision_low, recall_low and f1_low are meant to lie below the truth of the threshold that all of valid chooses in
    95 of 100 cases each (docs/evaluation.md has how often they did in simulations).

    Args:
        y_true: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        log_odds: scores, float of shape (n_rows,).
        rule: how the threshold is chosen.
        method: how scores are calibrated.
    """
    fold, _, probability, threshold = out_of_fold(y_true, units, log_odds, rule, method)
    rows = np.arange(len(y_true))
    own, share = probability[fold, rows], rule.fraud_fraction
    promised = metrics_at_fraction(y_true, own, threshold[fold], share, log_odds)
    return promised | lower_bounds(y_true, own >= threshold[fold], units, share)


class OutOfFold(NamedTuple):
    """What each fold of valid chooses without its own rows.

    fold: int of shape (n_rows,). weights: float of shape (folds, n_rows), 0 where a row is in that fold. probability:
    float of shape (folds, n_rows). threshold: float of shape (folds,), infinite if that fold raises no alarm.
    """

    fold: np.ndarray
    weights: np.ndarray
    probability: np.ndarray
    threshold: np.ndarray


def out_of_fold(
    y_true: np.ndarray, units: np.ndarray, log_odds: np.ndarray, rule: ThresholdRule, method: CalibrationMethod
) -> OutOfFold:
    """Calibration and threshold without each fold. The arguments are those of `promise`."""
    fold = unit_folds(y_true, units)
    weights = (fold != np.arange(fold.max() + 1)[:, None]).astype(float)
    slope, offset = fit_calibrations(y_true, log_odds, method, weights)
    probability = expit(log_odds * slope[:, None] + offset[:, None])
    return OutOfFold(fold, weights, probability, choose_thresholds(y_true, probability, rule, weights))


def unit_folds(y_true: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The fold of each row, int of shape (n_rows,). Units are dealt out in the order of their share of fraud."""
    _, unit = np.unique(units, return_inverse=True)
    share = np.bincount(unit, weights=y_true) / np.bincount(unit)
    order = np.lexsort((np.random.default_rng(0).random(len(share)), share))
    fold = np.empty(len(share), dtype=int)
    fold[order] = np.arange(len(share)) % min(FOLDS, len(share))
    return fold[unit]


def lower_bounds(
    y_true: np.ndarray, y_pred: np.ndarray, units: np.ndarray, fraud_fraction: float | None
) -> dict[str, float]:
    """One-sided lower bounds over units, by a jackknife with Student's t on the logit.

    Args:
        y_true, y_pred: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        fraud_fraction: the share of fraud that the metrics are for; None is that of the rows.
    """
    without = [decided(y_true, y_pred, weights, fraud_fraction) for weights in left_out(units)]
    (whole,) = decided(y_true, y_pred, np.ones((1, len(y_true))), fraud_fraction)
    quantile = float(t.ppf(LEVEL, max(effective_units(units) - 1, 1.0)))
    bounds = {}
    for column, (name, counted) in enumerate((("precision", y_pred), ("recall", y_true), ("f1", y_true))):
        value = float(whole[column])
        variance = jackknife_variance(np.concatenate(without)[:, column])
        if value in (0, 1):
            bound = value * all_of(units[counted])
            if value == 1 and name == "precision" and fraud_fraction is not None:
                found, alarms = fraud_fraction * whole[1], (1 - fraud_fraction) * (1 - all_of(units[~y_true]))
                # Harmless texts that were not seen count more, the rarer fraud is.
                bound = min(bound, found / (found + alarms))
        else:
            bound = float(expit(logit(value) - quantile * np.sqrt(variance) / (value * (1 - value))))
        bounds[f"{name}_low"] = bound if np.isfinite(bound) else 0.0
    return bounds


def all_of(units: np.ndarray) -> float:
    """Lower bound of a share of 1 in these units, int of shape (n_rows,), by Clopper and Pearson (1934)."""
    return float((1 - LEVEL) ** (1 / max(len(np.unique(units)), 1)))


def decided(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray, fraud_fraction: float | None) -> np.ndarray:
    """Precision, recall and F1 under row weights, shape (samples, 3).

    Args:
        y_true, y_pred: bool of shape (n_rows,).
        weights: float of shape (samples, n_rows).
        fraud_fraction: as in lower_bounds.
    """
    fraud, harmless = (each[:, 0] for each in prior_ratios(y_true, weights, fraud_fraction))
    tp, fp, all_fraud = (
        weights @ (y_true & y_pred) * fraud,
        weights @ (~y_true & y_pred) * harmless,
        weights @ y_true * fraud,
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(tp + fp > 0, tp / (tp + fp), 0.0)
        return np.column_stack([precision, tp / all_fraud, 2 * tp / (tp + fp + all_fraud)])
