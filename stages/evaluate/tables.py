"""Predictions for people and tools, and the CSV behind the plots."""

from pathlib import Path

import numpy as np
from sklearn.metrics import precision_recall_curve

from stages.evaluate.systems import System
from stages.report import write_csv
from stages.text.example import Example

CLASS_NAMES = {True: "fraud", False: "not fraud"}
CURVE_POINTS = 500


def write_predictions(path: Path, test: list[Example], systems: dict[str, System]) -> None:
    """A row a text of test, in order: where it came from, its label, and each system's score and decision."""
    rows = []
    for index, example in enumerate(test):
        row = {
            "source": example.source,
            "group": example.group,
            "category": example.category,
            "y_true": int(example.label),
        }
        for name, system in systems.items():
            score = system.y_score[index]
            row |= {
                f"{name}_score": "" if np.isnan(score) else f"{score:.6f}",
                f"{name}_pred": int(system.y_pred[index]),
            }
        rows.append(row)
    write_csv(path, rows, list(rows[0]))


def write_plots(folder: Path, y_true: list[bool], systems: dict[str, System]) -> None:
    """The confusion matrix of the model and a precision-recall curve a system."""
    decided = [
        {"actual": CLASS_NAMES[label], "predicted": CLASS_NAMES[bool(prediction)]}
        for label, prediction in zip(y_true, systems["model"].y_pred, strict=True)
    ]
    write_csv(folder / "confusion.csv", decided, ["actual", "predicted"])
    for name, system in systems.items():
        y_score = np.nan_to_num(system.y_score)
        precision, recall, _ = precision_recall_curve(y_true, y_score)
        keep = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).round().astype(int))
        points = [{"recall": float(recall[i]), "precision": float(precision[i])} for i in keep]
        write_csv(folder / "precision_recall" / f"{name}.csv", points, ["recall", "precision"])
