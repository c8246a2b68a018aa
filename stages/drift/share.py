"""The share of fraud among new texts, estimated from their scores, and the precision that follows from it."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from stages.drift.draws import drawn_rows
from stages.drift.reference import Reference
from stages.metrics import fit_calibrations
from stages.units import effective_units

RESAMPLES = 400
HALVINGS = 40
LEAST = 1e-6  # shares of 0 and 1 have no odds


@dataclass(frozen=True)
class FraudShare:
    """An estimate with a 95 % interval each.

    Attributes:
        share, low, high: of fraud.
        precision, precision_low, precision_high: of the alarms at that share. None if nothing is flagged on valid.
    """

    share: float
    low: float
    high: float
    precision: float | None
    precision_low: float | None
    precision_high: float | None


def estimate(reference: Reference, log_odds: np.ndarray) -> FraudShare | None:
    """Estimates the share of fraud by Saerens et al. (2002): the one under which the scores are most likely.

    It holds if fraud and harmless texts look as on valid, and only their shares differ. In each resample, valid's
    units are drawn anew, and calibration and rates with them; new texts as if they came in units as large as valid's.

    Args:
        reference: holds valid.
        log_odds: of the new texts, float of shape (n,).

    Returns None if valid has a single class.
    """
    labels, units = reference.labels, reference.label_units
    if labels.all() or not labels.any():
        return None
    rng = np.random.default_rng(0)
    weights = np.ones((RESAMPLES + 1, len(labels)))  # the first is valid itself
    for row, drawn in enumerate(drawn_rows(units, len(units), RESAMPLES, rng), 1):
        weights[row] = np.bincount(drawn, minlength=len(units))
    usable = (weights @ labels > 0) & (weights @ ~labels > 0)
    weights = weights[usable]
    new = np.ones((len(weights), len(log_odds)))
    independent = max(1, round(len(log_odds) * effective_units(units) / len(units)))
    new[1:] = rng.multinomial(independent, np.full(len(log_odds), 1 / len(log_odds)), size=len(weights) - 1)
    slope, offset = fit_calibrations(labels, reference.log_odds, reference.selected.calibration_method, weights)
    slope[0], offset[0] = 1, 0  # the record's calibration
    prior = logit((weights @ labels / weights.sum(axis=1)).clip(LEAST, 1 - LEAST))
    ratio = slope[:, None] * log_odds + (offset - prior)[:, None]
    shares = most_likely(ratio, new)
    precision = precisions(reference, weights, shares)
    return FraudShare(*with_interval(shares), *(with_interval(precision) if precision is not None else [None] * 3))


def with_interval(values: np.ndarray) -> tuple[float, float, float]:
    """A value and its 95 % interval, which holds it even near 0 and 1. values: itself, then those of resamples."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return float(values[0]), float(min(low, values[0])), float(max(high, values[0]))


def most_likely(ratio: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of fraud with the highest likelihood, shape (samples,): where its derivative, which falls, is 0.

    Args:
        ratio: log of how much likelier a text is among fraud than among harmless texts, (samples, n).
        weights: of the texts, (samples, n).
    """
    gain = np.expm1(ratio.clip(-50, 50))
    low, high = np.zeros(len(ratio)), np.ones(len(ratio))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rises = (weights * gain / (1 + middle[:, None] * gain)).sum(axis=1) > 0
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    return (low + high) / 2


def precisions(reference: Reference, weights: np.ndarray, shares: np.ndarray) -> np.ndarray | None:
    """The precision at each share, (samples,). The first is by the rates that the classifier promises.

    Args:
        reference: valid with its labels, and the record.
        weights: of valid's rows, (samples, n_valid).
        shares: of fraud, (samples,).
    """
    selected, labels = reference.selected, reference.labels
    recall, precision, at = (selected.promised[key] for key in ("recall", "precision", "fraud_fraction"))
    if not precision or not recall or not 0 < at < 1:
        return None
    false_alarms = recall * at * (1 - precision) / (precision * (1 - at))
    flagged = expit(reference.log_odds) >= selected.threshold
    # The rates' spread is that of the resamples. Half a text more on either side keeps them from 0.
    caught = ((weights * labels) @ flagged + 0.5) / (weights @ labels + 1)
    alarmed = ((weights * ~labels) @ flagged + 0.5) / (weights @ ~labels + 1)
    caught, alarmed = caught / caught[0] * recall, alarmed / alarmed[0] * false_alarms
    hits = shares * caught
    return hits / (hits + (1 - shares) * alarmed).clip(1e-300)
