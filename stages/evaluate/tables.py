"""CSV files: predictions, the worst errors, and the tables behind the plots."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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


def write_predictions(path: Path, examples: list[Example], predictions: dict[str, Predictions]) -> None:
    """Writes a row for each text, in order: its source, its label, and the score and decision of each system."""
    rows = []
    for index, example in enumerate(examples):
        row = {
            "source": example.source,
            "group": example.group,
            "unit": example.unit,
            "leak": example.leak,
            "category": example.category,
            "y_true": int(example.label),
        }
        for system, output in predictions.items():
            score = output.y_score[index]
            row |= {
                f"{system}_score": "" if np.isnan(score) else repr(float(score)),
                f"{system}_log_odds": "" if output.log_odds is None else repr(float(output.log_odds[index])),
                f"{system}_pred": int(output.y_pred[index]),
            }
        rows.append(row)
    write_csv(path, rows, list(rows[0]))


def write_plots(folder: Path, test: list[Example], predictions: dict[str, Predictions]) -> None:
    """Writes the tables behind the plots.

    For the model: confusion matrix, recall by category, and reliability of its probabilities. For each system: the
    precision-recall curve, and the chosen threshold as the corner of two lines.
    """
    y_true = np.array([example.label for example in test])
    model = predictions["model"]
    decided = [
        {"actual": CLASS_NAMES[bool(label)], "predicted": CLASS_NAMES[bool(prediction)]}
        for label, prediction in zip(y_true, model.y_pred, strict=True)
    ]
    write_csv(folder / "confusion.csv", decided, ["actual", "predicted"])
    for system, output in predictions.items():
        order = np.nan_to_num(output.y_score) if output.written else output.log_odds
        precision, recall, _ = precision_recall_curve(y_true, order)
        keep = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).round().astype(int))
        write_points(folder / f"precision_recall/{system}.csv", ("recall", "precision"), recall[keep], precision[keep])
        chosen = decision_metrics(y_true, output.y_pred)
        corner = [0, chosen["recall"], chosen["recall"]], [chosen["precision"], chosen["precision"], 0]
        write_points(folder / f"precision_recall/{system}_threshold.csv", ("recall", "precision"), *corner)
    before = model.y_score if model.written else model.uncalibrated
    for name, probability in (("model", model.y_score), ("model_before", before)):
        points = reliability(y_true, np.nan_to_num(probability))
        write_points(folder / f"reliability/{name}.csv", ("probability", "fraud_fraction"), *points)
    write_points(folder / "reliability/ideal.csv", ("probability", "fraud_fraction"), [0, 1], [0, 1])
    write_csv(folder / "recall_by_category.csv", recall_by_category(test, model.y_pred), ["category", "recall"])


def recall_by_category(examples: list[Example], y_pred: np.ndarray) -> list[dict[str, Any]]:
    """The share of the fraud texts of each category that is found. y_pred: bool of shape (n_rows,)."""
    found = defaultdict(list)
    for example, flagged in zip(examples, y_pred, strict=True):
        if example.label:
            found[example.category or "none"].append(bool(flagged))
    return [{"category": name, "recall": float(np.mean(flags))} for name, flags in sorted(found.items())]


def reliability(y_true: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability and share of fraud in each bin that holds texts, both of shape (n_bins,)."""
    bins = calibration_bins(probability)
    count = np.bincount(bins)
    some = count > 0
    mean, share = (np.bincount(bins, weights=values)[some] / count[some] for values in (probability, y_true))
    return mean, share


def write_points(path: Path, columns: tuple[str, str], x: Iterable[float], y: Iterable[float]) -> None:
    """Writes the points of a curve.

    Args:
        path: of the CSV file.
        columns: names of x and y.
        x: n values between 0 and 1.
        y: n values between 0 and 1.
    """
    rows = ({columns[0]: float(one), columns[1]: float(other)} for one, other in zip(x, y, strict=True))
    write_csv(path, rows, list(columns))
