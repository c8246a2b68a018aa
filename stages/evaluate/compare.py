"""The comparison of systems on a set: metrics with intervals, the model against the baseline, and the worst errors."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stages.evaluate.intervals import (
    FEWEST_UNITS,
    rate_interval,
    resample,
    resampled_scores,
    with_intervals,
)
from stages.evaluate.predictors import Predictions
from stages.metrics import decision_metrics, ranking_metrics, undefined_metrics
from stages.params import Evaluate
from stages.text.example import Example
from stages.units import effective_units

LENGTH_BANDS = (50, 100, 200, 400)  # characters
COMPARED = ("average_precision", "roc_auc", "f1", "precision", "recall")


def compare_systems(
    examples: list[Example], predictions: dict[str, Predictions], params: Evaluate, best_cheap: str = "baseline"
) -> dict[str, Any]:
    """Compares systems, by name, on all rows of a set and on parts of it.

    clean: rows that don't appear in train or valid. leaking: the other rows. without_categories: rows of other
    categories than those in evaluate.without_categories. A part that holds all rows or none is left out.

    Args:
        examples: the n_rows rows of the set.
        predictions: by system, on these rows.
        params: the section `evaluate` of params.yaml.
        best_cheap: the best of the systems without training, by what is known without the set.
    """
    leaks = np.array([bool(example.leak) for example in examples])
    others = np.array([example.category not in params.without_categories for example in examples])
    parts = {"clean": ~leaks, "leaking": leaks, "without_categories": others}
    samples = params.bootstrap_samples
    comparison = compare_rows(examples, predictions, samples, best_cheap)
    comparison["size"]["rows_truncated"] = predictions["model"].truncated
    for name, keep in parts.items():
        if keep.any() and not keep.all():
            rows = [example for example, kept in zip(examples, keep, strict=True) if kept]
            kept_predictions = {system: output.rows(keep) for system, output in predictions.items()}
            comparison[name] = compare_rows(rows, kept_predictions, samples, best_cheap)
    return comparison


def compare_rows(
    examples: list[Example], predictions: dict[str, Predictions], samples: int, best_cheap: str = "baseline"
) -> dict[str, Any]:
    """Compares systems on some rows.

    size: rows, units and share of fraud. Under a system's name: its metrics, with intervals if there are enough units.
    difference: model minus baseline, on the same resamples. ahead: each system minus the best cheap one. Single-class
    rows have decisions only: false alarms if all texts are harmless, recall if all are fraud.

    Args:
        examples: n_rows rows.
        predictions: by system, on these rows.
        samples: number of resamples.
        best_cheap: name of the best system without training.
    """
    y_true = np.array([example.label for example in examples])
    units = np.array([example.unit for example in examples])
    size = {
        "rows": len(examples),
        "units": len(set(units.tolist())),
        "effective_units": effective_units(units),
        "fraud_fraction": float(y_true.mean()),
    }
    always = decision_metrics(y_true, np.ones(len(y_true), dtype=bool))
    bounds = {system: rate_bounds(output, y_true, units, samples) for system, output in predictions.items()}
    if y_true.all() or not y_true.any():
        decisions = {system: output.decisions(y_true) | bounds[system] for system, output in predictions.items()}
        return {"size": size, "always_fraud": always, **decisions}
    plain = {system: output.metrics(y_true) for system, output in predictions.items()}
    resamples = resample(predictions, y_true, units, samples)
    metrics = {system: with_intervals(values, resamples, system) | bounds[system] for system, values in plain.items()}

    def minus(system: str, other: str) -> dict[str, float]:
        both = [name for name in COMPARED if name in plain[system] and name in plain[other]]
        differences = {name: plain[system][name] - plain[other][name] for name in both}
        return with_intervals(differences, resamples, system, other)

    return {
        "size": size,
        "always_fraud": always,
        **metrics,
        **({"difference": minus("model", "baseline")} if "model" in predictions else {}),
        "best_cheap": {"name": best_cheap},
        "ahead": {system: minus(system, best_cheap) for system in predictions if system != best_cheap},
    }


def rate_bounds(predictions: Predictions, y_true: np.ndarray, units: np.ndarray, samples: int) -> dict[str, float]:
    """Interval of false_alarms_per_1000 on the harmless texts, or of recall if all texts are fraud.

    These rates need one class only. The interval is missing with fewer than FEWEST_UNITS units.

    Args:
        predictions: of one system.
        y_true: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        samples: number of resamples.
    """
    name, keep, scale = ("recall", y_true, 1) if y_true.all() else ("false_alarms_per_1000", ~y_true, 1000)
    if len(set(units[keep].tolist())) < FEWEST_UNITS:
        return {}
    rows = predictions.rows(keep)
    _, probability, threshold = resampled_scores(rows, slice(0, samples))
    again = np.broadcast_to(probability >= threshold, (samples, int(keep.sum())))
    low, high = rate_interval(np.concatenate([rows.y_pred[None], again]), units[keep])
    return {f"{name}_low": scale * low, f"{name}_high": scale * high}


def slices(name: str, examples: list[Example], predictions: dict[str, Predictions]) -> Iterator[dict[str, Any]]:
    """Yields the metrics of each system on each category, length band, source file and kind of leak.

    A metric that is undefined on these rows is None.
    """
    for by, value, keep in groups(examples):
        y_true = np.array([example.label for example in examples])[keep]
        for system, output in predictions.items():
            part = output.rows(keep)
            metrics: dict[str, Any] = decision_metrics(y_true, part.y_pred)
            metrics |= dict.fromkeys(undefined_metrics(metrics))
            if part.log_odds is not None and 0 < y_true.sum() < len(y_true):
                metrics |= ranking_metrics(y_true, part.log_odds)
            whole = {"set": name, "by": by, "value": value, "system": system, "rows": len(y_true)}
            yield whole | {"fraud": int(y_true.sum())} | metrics


def groups(examples: list[Example]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields what rows are grouped by, the value they share, and which they are, bool of shape (n_rows,)."""
    kinds = {
        "category": [example.category or "none" for example in examples],
        "characters": [length_band(len(example.input)) for example in examples],
        "source": [example.source.rpartition(":")[0] for example in examples],
        "leak": [example.leak or "clean" for example in examples],
    }
    for by, values in kinds.items():
        for value in sorted(set(values)):
            yield by, value, np.array([each == value for each in values])


def length_band(characters: int) -> str:
    """A name such as "0051-0100". The zeros keep the bands in order when they are sorted as text."""
    low = 0
    for high in LENGTH_BANDS:
        if characters <= high:
            return f"{low:04}-{high:04}"
        low = high + 1
    return f"{low:04} or more"


def worst_errors(
    name: str, examples: list[Example], predictions: dict[str, Predictions], most: int
) -> Iterator[dict[str, Any]]:
    """Yields the false alarms and the misses that the model was surest of.

    Args:
        name: of the set.
        examples: its n_rows rows.
        predictions: by system, on these rows.
        most: number of false alarms, and of misses, at most.
    """
    model, baseline = predictions["model"], predictions["baseline"]
    y_true = np.array([example.label for example in examples])
    score = np.nan_to_num(model.y_score)
    for kind, rows, sureness in (
        ("false alarm", np.flatnonzero(model.y_pred & ~y_true), score),
        ("miss", np.flatnonzero(~model.y_pred & y_true), -score),
    ):
        for row in rows[np.argsort(-sureness[rows], kind="stable")][:most]:
            example = examples[row]
            yield {
                "set": name,
                "error": kind,
                "probability": f"{score[row]:.4f}",
                "baseline_probability": f"{baseline.y_score[row]:.4f}",
                "leak": example.leak,
                "category": example.category,
                "source": example.source,
                "input": example.input,
            }
