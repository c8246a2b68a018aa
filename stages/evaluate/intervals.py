"""Intervals of metrics by the percentile bootstrap over units: rows that belong together are drawn together.

A resample draws as many units as there are, with replacement. The weight of a row is how often its unit was drawn.
Systems are compared on the same resamples (paired), so what is hard for both cancels out.
"""

from collections.abc import Iterator

import numpy as np
from scipy.stats import binomtest

from stages.evaluate.predictors import Predictions
from stages.metrics import CALIBRATION_BINS, PRECISIONS, calibration_bins

LEVEL = 95  # percent of the resamples that an interval holds
CELLS_AT_ONCE = 4_000_000  # resamples x rows


def resampled_weights(units: np.ndarray, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields blocks of row weights, float of shape (n_block, n_rows). The same arguments give the same weights."""
    _, unit = np.unique(units, return_inverse=True)
    count = int(unit.max()) + 1
    rng = np.random.default_rng(seed)
    at_once = max(1, CELLS_AT_ONCE // len(unit))
    for first in range(0, samples, at_once):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(at_once, samples - first))
        yield drawn[:, unit].astype(np.float64)


def weighted_metrics(predictions: Predictions, y_true: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """`Predictions.metrics` under row weights, each of shape (samples,); NaN where a class has no weight.

    weights: float of shape (samples, n_rows). y_true: bool of shape (n_rows,).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        predicted = weights * predictions.y_pred
        tp, flagged, positive = predicted @ y_true, predicted.sum(axis=1), weights @ y_true
        metrics = {
            "precision": ratio(tp, flagged),
            "recall": ratio(tp, positive),
            "f1": ratio(2 * tp, flagged + positive),
        }
        total = weights.sum(axis=1)
        both = (positive > 0) & (positive < total)
        if predictions.log_odds is None:
            return {name: np.where(both, values, np.nan) for name, values in metrics.items()}
        metrics |= curve_metrics(predictions.log_odds, y_true, weights)
        for suffix, probability in (("", predictions.y_score), ("_before", predictions.uncalibrated)):
            gaps = (y_true - probability)[:, None] * (
                calibration_bins(probability)[:, None] == np.arange(CALIBRATION_BINS)
            )
            metrics[f"brier{suffix}"] = weights @ (y_true - probability) ** 2 / total
            metrics[f"calibration_error{suffix}"] = np.abs(weights @ gaps).sum(axis=1) / total
    return {name: np.where(both, values, np.nan) for name, values in metrics.items()}


def curve_metrics(y_score: np.ndarray, y_true: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics over all thresholds, each of shape (samples,). Every score is a threshold; equal scores are flagged
    together. weights: float of shape (samples, n_rows)."""
    order = np.argsort(-y_score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(y_score[order]) != 0, True))
    ordered, label = weights[:, order], y_true[order]
    tp = np.cumsum(ordered * label, axis=1)[:, last]
    fp = np.cumsum(ordered * ~label, axis=1)[:, last]
    positive, negative = tp[:, -1], fp[:, -1]
    start = np.zeros((len(weights), 1))
    step_tp, step_fp = np.diff(tp, axis=1, prepend=start), np.diff(fp, axis=1, prepend=start)
    precision = np.nan_to_num(tp / (tp + fp))
    recall = tp / positive[:, None]
    return {
        "average_precision": (step_tp * precision).sum(axis=1) / positive,
        "roc_auc": (step_fp * (tp - step_tp / 2)).sum(axis=1) / (positive * negative),
        **{
            f"recall_at_precision_{percent}": np.where(precision >= percent / 100, recall, 0).max(axis=1)
            for percent in PRECISIONS
        },
    }


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / whole, 0.0)


def bootstrap(
    predictions: dict[str, Predictions], y_true: np.ndarray, units: np.ndarray, samples: int, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Metrics of each system in each resample, of shape (samples,).

    Args:
        predictions: by system, on the same n_rows rows.
        y_true: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        samples: number of resamples.
        seed: of the random draws.
    """
    blocks: dict[str, list[dict[str, np.ndarray]]] = {system: [] for system in predictions}
    for weights in resampled_weights(units, samples, seed):
        for system, output in predictions.items():
            blocks[system].append(weighted_metrics(output, y_true, weights))
    return {
        system: {metric: np.concatenate([block[metric] for block in parts]) for metric in parts[0]}
        for system, parts in blocks.items()
    }


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The bounds between which LEVEL percent of the resamples lie; None if no resample had both classes."""
    if np.isnan(values).all():
        return None
    low, high = np.nanpercentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def rate_interval(happened: np.ndarray, units: np.ndarray, samples: int, seed: int = 0) -> tuple[float, float]:
    """The interval of the share of rows in which something happened, by resampling units.

    If it happened in no row or in every row, all resamples are equal and would claim certainty. The interval is then
    Wilson's (1927) for that many units.

    Args:
        happened: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        samples: number of resamples.
        seed: of the random draws.
    """
    _, unit = np.unique(units, return_inverse=True)
    rows, hits = np.bincount(unit), np.bincount(unit, weights=happened)
    if happened.all() or not happened.any():
        count = len(rows)
        bounds = binomtest(count if happened.all() else 0, count).proportion_ci(LEVEL / 100, method="wilson")
        return float(bounds.low), float(bounds.high)
    blocks = resampled_weights(np.arange(len(rows)), samples, seed)
    bounds = interval(np.concatenate([weights @ hits / (weights @ rows) for weights in blocks]))
    assert bounds is not None, "every resample has rows"
    return bounds


def with_intervals(metrics: dict[str, float], resamples: dict[str, np.ndarray]) -> dict[str, float]:
    """The metrics, with NAME_low and NAME_high beside each metric NAME that was resampled."""
    bounds = {name: interval(values) for name, values in resamples.items() if name in metrics}
    low = {f"{name}_low": pair[0] for name, pair in bounds.items() if pair}
    high = {f"{name}_high": pair[1] for name, pair in bounds.items() if pair}
    return {**metrics, **low, **high}
