"""Predictions for people and tools, and the CSV behind the plots."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from sklearn.metrics import precision_recall_curve

from stages.artifacts import write_csv
from stages.evaluate.predictors import Predictions
from stages.metrics import calibration_bins, decision_metrics
from stages.text.example import Example

CLASS_NAMES = {True: "fraud", False: "not fraud"}
CURVE_POINTS = 500
ERROR_COLUMNS = ["set", "error", "probability", "baseline_probability", "leak", "category", "source", "input"]
SLICE_COLUMNS = ["set", "by", "value", "system", "rows", "fraud", "tp", "fp", "fn", "tn", "precision", "recall", "f1"]
SLICE_COLUMNS += ["false_alarms_per_1000", "average_precision", "roc_auc"]


def write_predictions(path: Path, test: list[Example], systems: dict[str, Predictions]) -> None:
    """A row a text of test, in order: where it came from, its label, and each system's score and decision."""
    rows = []
    for index, example in enumerate(test):
        row = {
            "source": example.source,
            "group": example.group,
            "unit": example.unit,
            "leak": example.leak,
            "category": example.category,
            "y_true": int(example.label),
        }
        for name, system in systems.items():
            score = system.y_score[index]
            row |= {
                f"{name}_score": "" if np.isnan(score) else repr(float(score)),
                f"{name}_pred": int(system.y_pred[index]),
            }
        rows.append(row)
    write_csv(path, rows, list(rows[0]))


def write_plots(folder: Path, test: list[Example], systems: dict[str, Predictions]) -> None:
    """Of the model the confusion matrix, the recall a category, and how true its probabilities are; of each system the
    precision-recall curve, with the chosen threshold as the corner of two lines."""
    y_true = np.array([example.label for example in test])
    model = systems["model"]
    decided = [
        {"actual": CLASS_NAMES[bool(label)], "predicted": CLASS_NAMES[bool(prediction)]}
        for label, prediction in zip(y_true, model.y_pred, strict=True)
    ]
    write_csv(folder / "confusion.csv", decided, ["actual", "predicted"])
    for name, system in systems.items():
        order = np.nan_to_num(system.y_score) if system.written else system.log_odds
        precision, recall, _ = precision_recall_curve(y_true, order)
        keep = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).round().astype(int))
        write_points(folder / f"precision_recall/{name}.csv", ("recall", "precision"), recall[keep], precision[keep])
        chosen = decision_metrics(y_true, system.y_pred)
        corner = [0, chosen["recall"], chosen["recall"]], [chosen["precision"], chosen["precision"], 0]
        write_points(folder / f"precision_recall/{name}_threshold.csv", ("recall", "precision"), *corner)
    before = model.y_score if model.written else model.uncalibrated
    for name, probability in (("model", model.y_score), ("model_before", before)):
        points = reliability(y_true, np.nan_to_num(probability))
        write_points(folder / f"reliability/{name}.csv", ("probability", "fraud_fraction"), *points)
    write_points(folder / "reliability/ideal.csv", ("probability", "fraud_fraction"), [0, 1], [0, 1])
    found = defaultdict(list)
    for example, prediction in zip(test, model.y_pred, strict=True):
        if example.label:
            found[example.category or "none"].append(bool(prediction))
    rows = [{"category": name, "recall": float(np.mean(caught))} for name, caught in sorted(found.items())]
    write_csv(folder / "recall_by_category.csv", rows, ["category", "recall"])


def reliability(y_true: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability and share of fraud of the texts in each bin that holds some."""
    bins = calibration_bins(probability)
    count = np.bincount(bins)
    some = count > 0
    return tuple(np.bincount(bins, weights=values)[some] / count[some] for values in (probability, y_true))


def write_points(path: Path, columns: tuple[str, str], x: Iterable[float], y: Iterable[float]) -> None:
    rows = ({columns[0]: float(one), columns[1]: float(other)} for one, other in zip(x, y, strict=True))
    write_csv(path, rows, list(columns))
