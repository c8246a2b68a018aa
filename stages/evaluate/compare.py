"""A set's report: each system's metrics with intervals, the model against the baseline, and where the model fails."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stages.evaluate.intervals import bootstrap, rate_interval, with_intervals
from stages.evaluate.predictors import Predictions
from stages.metrics import decision_metrics, ranking_metrics, undefined_metrics
from stages.params import Evaluate
from stages.text.example import Example

LENGTH_BANDS = (50, 100, 200, 400)  # characters
FEWEST_UNITS = 5  # of fewer a bootstrap says nothing: no intervals
COMPARED = ("average_precision", "roc_auc", "f1", "precision", "recall")


def report(examples: list[Example], systems: dict[str, Predictions], params: Evaluate) -> dict[str, Any]:
    """All rows; `clean`: those that don't stand in train or valid; `leaking`: the others; `without_categories`: those
    of other categories than the ones named. A part that is all or nothing is left out."""
    leaks = np.array([bool(example.leak) for example in examples])
    others = np.array([example.category not in params.without_categories for example in examples])
    parts = {"clean": ~leaks, "leaking": leaks, "without_categories": others}
    samples = params.bootstrap_samples
    return part_report(examples, systems, samples) | {
        name: part_report(
            [example for example, kept in zip(examples, keep, strict=True) if kept],
            {system: output.rows(keep) for system, output in systems.items()},
            samples,
        )
        for name, keep in parts.items()
        if keep.any() and not keep.all()
    }


def part_report(examples: list[Example], systems: dict[str, Predictions], samples: int) -> dict[str, Any]:
    """rows; a system: metrics with intervals, where there are units enough; difference: model minus baseline, of equal
    resamples. A set of one class has decisions only: false alarms if its texts are harmless, recall if they are fraud.
    """
    y_true = np.array([example.label for example in examples])
    units = np.array([example.unit for example in examples])
    size = {"rows": len(examples), "units": len(set(units.tolist())), "fraud_fraction": float(y_true.mean())}
    always = decision_metrics(y_true, np.ones(len(y_true), dtype=bool))
    if y_true.all() or not y_true.any():
        decisions = {
            name: system.decisions(y_true) | rate_bounds(system, y_true, units, samples)
            for name, system in systems.items()
        }
        return {"size": size, "always_fraud": always, **decisions}
    metrics = {
        name: system.metrics(y_true) | rate_bounds(system, y_true, units, samples) for name, system in systems.items()
    }
    compared = [name for name in COMPARED if name in metrics["model"] and name in metrics["baseline"]]
    difference = {name: metrics["model"][name] - metrics["baseline"][name] for name in compared}
    if size["units"] >= FEWEST_UNITS:
        resamples = bootstrap(systems, y_true, units, samples)
        metrics = {name: with_intervals(values, resamples[name]) for name, values in metrics.items()}
        paired = {name: resamples["model"][name] - resamples["baseline"][name] for name in compared}
        difference = with_intervals(difference, paired)
    return {"size": size, "always_fraud": always, **metrics, "difference": difference}


def rate_bounds(system: Predictions, y_true: np.ndarray, units: np.ndarray, samples: int) -> dict[str, float]:
    """Interval of the rate that needs one class only: false_alarms_per_1000 of the harmless texts, or recall where
    there are none. Empty for fewer than FEWEST_UNITS units.

    Args:
        system: the classifier's output on a set.
        y_true: bool of shape (n,).
        units: of shape (n,), which unit each text belongs to.
        samples: how many resamples the bootstrap draws.
    """
    name, rows, scale = ("recall", y_true, 1) if y_true.all() else ("false_alarms_per_1000", ~y_true, 1000)
    if len(set(units[rows].tolist())) < FEWEST_UNITS:
        return {}
    low, high = rate_interval(system.y_pred[rows], units[rows], samples)
    return {f"{name}_low": scale * low, f"{name}_high": scale * high}


def slices(name: str, examples: list[Example], systems: dict[str, Predictions]) -> Iterator[dict[str, Any]]:
    """Metrics of each system on the rows of each category, length band, source file and kind of leak; one that these
    rows don't define is None."""
    for by, value, keep in groups(examples):
        y_true = np.array([example.label for example in examples])[keep]
        for system, output in systems.items():
            part = output.rows(keep)
            metrics = decision_metrics(y_true, part.y_pred)
            metrics |= dict.fromkeys(undefined_metrics(metrics))
            if not part.written and 0 < y_true.sum() < len(y_true):
                metrics |= ranking_metrics(y_true, part.log_odds)
            whole = {"set": name, "by": by, "value": value, "system": system, "rows": len(y_true)}
            yield whole | {"fraud": int(y_true.sum())} | metrics


def groups(examples: list[Example]) -> Iterator[tuple[str, str, np.ndarray]]:
    """(what, value, mask of shape (n_rows,))."""
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
    """Such as "0051-0100": the zeros keep bands in order where they are sorted as text."""
    low = 0
    for high in LENGTH_BANDS:
        if characters <= high:
            return f"{low:04}-{high:04}"
        low = high + 1
    return f"{low:04} or more"


def worst_errors(
    name: str, examples: list[Example], systems: dict[str, Predictions], listed: int
) -> Iterator[dict[str, Any]]:
    """The model's false alarms and misses of which it was surest, `listed` of each at most."""
    model, baseline = systems["model"], systems["baseline"]
    y_true = np.array([example.label for example in examples])
    score = np.nan_to_num(model.y_score)
    for kind, rows, sureness in (
        ("false alarm", np.flatnonzero(model.y_pred & ~y_true), score),
        ("miss", np.flatnonzero(~model.y_pred & y_true), -score),
    ):
        for row in rows[np.argsort(-sureness[rows], kind="stable")][:listed]:
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
