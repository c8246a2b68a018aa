"""Metrics of a binary classifier, calibration and the decision threshold.

Fraud is the positive class. A text is called fraud if its score is at or above the threshold. scikit-learn computes the
metrics, with its own conventions (true i, predicted j).
"""

from typing import assert_never

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    confusion_matrix_at_thresholds,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
)

from stages.errors import UserError
from stages.params import Select

CALIBRATION_BINS = 15  # of equal width, as in Guo et al. 2017 (arXiv:1706.04599)
BEST_F1 = Select(metric="f1", threshold="max_f1", min_precision=0, cost={"fp": 1, "fn": 1}, fraud_fraction=None)
ROUNDING = 1e-9
PRECISIONS = (95, 98, 99)  # percent, of recall_at_precision_*


def decision_metrics(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """Counts, precision, recall, F1, and false alarms per 1,000 harmless texts.

    Precision is 0 without a positive prediction, recall without a positive, and all are 0 without rows
    (`undefined_metrics` names them). Without a harmless text there is no false_alarms_per_1000.

    Args:
        y_true, y_pred: array-like of bool of shape (n_samples,).
    """
    if len(y_true) == 0:
        return {"tn": 0, "fp": 0, "fn": 0, "tp": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    tn, fp, fn, tp = confusion_matrix(y_true, y_pred, labels=[False, True]).ravel().tolist()
    precision, recall, f1, _ = precision_recall_fscore_support(
        y_true, y_pred, labels=[False, True], pos_label=True, average="binary", zero_division=0
    )
    alarms = {"false_alarms_per_1000": 1000 * fp / (fp + tn)} if fp + tn else {}
    return {"tn": tn, "fp": fp, "fn": fn, "tp": tp, "precision": precision, "recall": recall, "f1": f1, **alarms}


def undefined_metrics(decided: dict[str, float]) -> set[str]:
    """Names of the `decision_metrics` that are 0 by convention only.

    Without an alarm that is precision. Without fraud it is precision, recall and F1.
    """
    if decided["tp"] + decided["fn"] == 0:
        return {"precision", "recall", "f1"}
    return {"precision"} if decided["tp"] + decided["fp"] == 0 else set()


def ranking_metrics(y_true: np.ndarray, y_score: np.ndarray) -> dict[str, float]:
    """Average precision and area under the ROC curve, which depend on the order of scores only. Needs both classes."""
    return {
        "average_precision": float(average_precision_score(y_true, y_score)),
        "roc_auc": float(roc_auc_score(y_true, y_score)),
    }


def score_metrics(
    y_true: np.ndarray, y_score: np.ndarray, threshold: float, log_odds: np.ndarray | None = None
) -> dict[str, float]:
    """Decision metrics at the threshold, ranking metrics, metrics of the probabilities, and the threshold.

    Args:
        y_true, y_score: labels (bool) and probabilities of shape (n_samples,).
        threshold: from which probability on a text is called fraud.
        log_odds: log-odds behind the probabilities, to rank by. Near 1, different log-odds give equal probabilities.
    """
    order = y_score if log_odds is None else log_odds
    return {
        **decision_metrics(y_true, np.asarray(y_score) >= threshold),
        **ranking_metrics(y_true, order),
        **recall_at_precision(y_true, order),
        **probability_metrics(y_true, y_score),
        "threshold": float(threshold),
    }


def recall_at_precision(y_true: np.ndarray, y_score: np.ndarray) -> dict[str, float]:
    """The highest recall among thresholds whose precision is at least 0.95, 0.98, 0.99. It is 0 if there is none."""
    precision, recall, _ = precision_recall_curve(y_true, y_score)
    precision, recall = precision[:-1], recall[:-1]  # the last point belongs to no threshold
    return {
        f"recall_at_precision_{percent}": float(recall[precision >= percent / 100].max(initial=0.0))
        for percent in PRECISIONS
    }


def probability_metrics(y_true: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Brier score and expected calibration error.

    The latter is the mean over texts of the gap between mean probability and share of fraud in a text's bin.
    """
    y_true, probability = np.asarray(y_true, dtype=float), np.asarray(probability)
    gaps = np.bincount(calibration_bins(probability), weights=y_true - probability)
    return {
        "brier": float(brier_score_loss(y_true, probability, pos_label=1)),
        "calibration_error": float(np.abs(gaps).sum() / len(y_true)),
    }


def calibration_bins(probability: np.ndarray) -> np.ndarray:
    """The bin of each probability, from 0, shape (n_samples,)."""
    return np.minimum((np.asarray(probability) * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)


def fit_temperature(y_true: np.ndarray, log_odds: np.ndarray) -> float:
    """The temperature T between e^-2 and e^5 for which expit(log_odds / T) has the lowest log loss."""
    sign = np.where(np.asarray(y_true, dtype=bool), 1.0, -1.0)
    log_odds = np.asarray(log_odds)

    def log_loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -sign * log_odds / np.exp(log_temperature)).mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=(-2, 5), method="bounded").x))


def calibrated(log_odds: np.ndarray, temperature: float) -> np.ndarray:
    """Probability of fraud, shape (n_samples,)."""
    return expit(np.asarray(log_odds) / temperature)


def choose_threshold(y_true: np.ndarray, y_score: np.ndarray, rule: Select) -> float:
    """The decision threshold that `rule` finds best on these texts.

    - max_f1: the highest F1.
    - precision_at_least: the highest recall among thresholds whose precision is at least `rule.min_precision`.
      Raises UserError if there is none.
    - min_cost: the lowest cost. `rule.cost` holds the cost of a false alarm (fp) and of a miss (fn).
    - fixed: 0.5.

    All rules weight the texts as if `rule.fraud_fraction` of them were fraud. Ties go to the higher threshold. The
    threshold lies midway to the next lower score (or 0), so that it does not depend on one text's last digits.
    """
    if rule.threshold == "fixed":
        return 0.5
    weights = fraction_weights(y_true, rule.fraud_fraction)
    _, fp, fn, tp, thresholds = confusion_matrix_at_thresholds(y_true, y_score, sample_weight=weights)
    precision = tp / (tp + fp)
    if rule.threshold == "max_f1":
        worth = 2 * tp / (2 * tp + fp + fn)
    elif rule.threshold == "min_cost":
        worth = -(rule.cost["fp"] * fp + rule.cost["fn"] * fn)
        if worth.max() < -rule.cost["fn"] * tp[-1]:  # any alarm costs more than it saves, so there is none
            return float(np.nextafter(np.max(y_score), np.inf))
    elif rule.threshold == "precision_at_least":
        worth = np.where(precision >= rule.min_precision - ROUNDING, tp, -1)
        if worth.max() < 0:
            raise UserError(
                f"no threshold reaches select.min_precision {rule.min_precision} on valid (the best precision is "
                f"{precision.max():.3f}): lower it, or choose select.threshold max_f1"
            )
    else:
        assert_never(rule.threshold)
    best = int(np.argmax(worth))  # thresholds are in descending order
    below = thresholds[best + 1] if best + 1 < len(thresholds) else min(0.0, thresholds[best])
    middle = (thresholds[best] + below) / 2
    return float(middle if middle > below else thresholds[best])  # rounding may move the middle to `below`


def fraction_weights(y_true: np.ndarray, fraud_fraction: float | None) -> np.ndarray:
    """Weights of the texts, shape (n_samples,), under which that share of them is fraud. None keeps the share."""
    y_true = np.asarray(y_true, dtype=bool)
    share = y_true.mean()
    if fraud_fraction is None or not 0 < share < 1:
        return np.ones(len(y_true))
    return np.where(y_true, fraud_fraction / share, (1 - fraud_fraction) / (1 - share))


def metrics_at_fraction(
    y_true: np.ndarray, y_score: np.ndarray, threshold: float, fraud_fraction: float | None, log_odds: np.ndarray
) -> dict[str, float]:
    """Precision, recall, F1 and average precision as if that share of the texts were fraud, and the share.

    Precision depends on the share, so sets with different shares are compared by these.

    Args:
        y_true, y_score: labels (bool) and probabilities of shape (n_samples,).
        threshold: from which probability on a text is called fraud.
        fraud_fraction: the share of fraud, None for that of the texts.
        log_odds: log-odds behind the probabilities, to rank by, as in score_metrics.
    """
    weights = fraction_weights(y_true, fraud_fraction)
    precision, recall, f1, _ = precision_recall_fscore_support(
        y_true, np.asarray(y_score) >= threshold, average="binary", zero_division=0, sample_weight=weights
    )
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "average_precision": float(average_precision_score(y_true, log_odds, sample_weight=weights)),
        "fraud_fraction": float(np.mean(y_true)) if fraud_fraction is None else fraud_fraction,
    }
