"""Metrics of a binary classifier and the decision threshold. Fraud is the positive class; a text is called fraud when
its score is at or above the threshold. scikit-learn computes; conventions (true i, predicted j) are its own."""

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
)

from stages import UserError
from stages.params import Select


def decision_metrics(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """Counts, precision, recall and F1 of decisions.

    Args:
        y_true, y_pred: array-like of bool of shape (n_samples,).

    Precision without a positive prediction is 0, as is recall without a positive; of no rows, all are 0.
    """
    if len(y_true) == 0:
        return {"tn": 0, "fp": 0, "fn": 0, "tp": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    tn, fp, fn, tp = confusion_matrix(y_true, y_pred, labels=[False, True]).ravel().tolist()
    precision, recall, f1, _ = precision_recall_fscore_support(
        y_true, y_pred, labels=[False, True], pos_label=True, average="binary", zero_division=0
    )
    return {"tn": tn, "fp": fp, "fn": fn, "tp": tp, "precision": precision, "recall": recall, "f1": f1}


def ranking_metrics(y_true: np.ndarray, y_score: np.ndarray) -> dict[str, float]:
    """Average precision and area under the ROC curve: of the scores' order alone, no threshold. Needs both classes."""
    return {
        "average_precision": float(average_precision_score(y_true, y_score)),
        "roc_auc": float(roc_auc_score(y_true, y_score)),
    }


def score_metrics(y_true: np.ndarray, y_score: np.ndarray, threshold: float) -> dict[str, float]:
    """Decision metrics at the threshold, ranking metrics, and the threshold itself."""
    decisions = decision_metrics(y_true, np.asarray(y_score) >= threshold)
    return {**decisions, **ranking_metrics(y_true, y_score), "threshold": float(threshold)}


def choose_threshold(y_true: np.ndarray, y_score: np.ndarray, rule: Select) -> float:
    """The decision threshold that `rule` finds best on these texts.

    max_f1: the highest F1. precision_at_least: the highest recall among thresholds whose precision is at least
    `rule.min_precision`; UserError where there is none. fixed: 0.5. Ties go to the higher threshold, and the
    threshold lies midway to the next lower score (or 0), so that it does not hang on one text's last digits.
    """
    if rule.threshold == "fixed":
        return 0.5
    precision, recall, thresholds = precision_recall_curve(y_true, y_score)
    precision, recall = precision[:-1], recall[:-1]  # the last point belongs to no threshold
    if rule.threshold == "max_f1":
        worth = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    else:
        worth = np.where(precision >= rule.min_precision, recall, -1)
        if worth.max() < 0:
            raise UserError(
                f"no threshold reaches select.min_precision {rule.min_precision} on valid (the best precision is "
                f"{precision.max():.3f}): lower it, or choose select.threshold max_f1"
            )
    best = len(worth) - 1 - int(np.argmax(worth[::-1]))
    below = thresholds[best - 1] if best > 0 else 0.0
    return float((thresholds[best] + below) / 2)
