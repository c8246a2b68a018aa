"""Metrics of a binary classifier and the decision threshold. Fraud is the positive class; a text is called fraud when
its score is at or above the threshold. scikit-learn computes; conventions (true i, predicted j) are its own."""

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
    """Counts, precision, recall, F1, and false alarms per 1,000 harmless texts, of decisions.

    Args:
        y_true, y_pred: array-like of bool of shape (n_samples,).

    Precision without a positive prediction is 0, as is recall without a positive; of no rows, all are 0
    (`undefined_metrics` names them). Without a harmless text there is no false_alarms_per_1000.
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
    """Which of `decision_metrics` are 0 by convention alone: precision where there was no alarm, and all three where
    there is no fraud to find."""
    if decided["tp"] + decided["fn"] == 0:
        return {"precision", "recall", "f1"}
    return {"precision"} if decided["tp"] + decided["fp"] == 0 else set()


def ranking_metrics(y_true: np.ndarray, y_score: np.ndarray) -> dict[str, float]:
    """Average precision and area under the ROC curve: of the scores' order alone, no threshold. Needs both classes."""
    return {
        "average_precision": float(average_precision_score(y_true, y_score)),
        "roc_auc": float(roc_auc_score(y_true, y_score)),
    }


def score_metrics(
    y_true: np.ndarray, y_score: np.ndarray, threshold: float, log_odds: np.ndarray | None = None
) -> dict[str, float]:
    """Decision metrics at the threshold, ranking metrics, those of the scores as probabilities, and the threshold.

    log_odds: what the probabilities y_score were made of, to rank by: near 1 they are equal where log-odds differ.
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
    """The highest recall among thresholds whose precision is at least 0.95, 0.98, 0.99; 0 where there is none."""
    precision, recall, _ = precision_recall_curve(y_true, y_score)
    precision, recall = precision[:-1], recall[:-1]  # the last point belongs to no threshold
    return {
        f"recall_at_precision_{percent}": float(recall[precision >= percent / 100].max(initial=0.0))
        for percent in PRECISIONS
    }


def probability_metrics(y_true: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Brier score, and expected calibration error: mean over texts of the gap, in their bin of probabilities, between
    the mean probability and the share of fraud."""
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
    """The temperature T for which expit(log_odds / T) has the lowest log loss, between e^-2 and e^5."""
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

    max_f1: the highest F1. precision_at_least: the highest recall among thresholds whose precision is at least
    `rule.min_precision`; UserError where there is none. min_cost: the lowest cost, `rule.cost` saying what a false
    alarm (fp) and a miss (fn) cost. fixed: 0.5. All as if `rule.fraud_fraction` of the texts were fraud. Ties go to the
    higher threshold, and the threshold lies midway to the next lower score (or 0), so that it does not hang on one
    text's last digits.
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
        if worth.max() < -rule.cost["fn"] * tp[-1]:  # an alarm costs more than it saves: none
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
    best = int(np.argmax(worth))  # the thresholds fall
    below = thresholds[best + 1] if best + 1 < len(thresholds) else min(0.0, thresholds[best])
    middle = (thresholds[best] + below) / 2
    return float(middle if middle > below else thresholds[best])  # of neighbouring numbers it may be the lower one


def fraction_weights(y_true: np.ndarray, fraud_fraction: float | None) -> np.ndarray:
    """Weights of the texts, shape (n_samples,), under which that share of them is fraud; None: as they are."""
    y_true = np.asarray(y_true, dtype=bool)
    share = y_true.mean()
    if fraud_fraction is None or not 0 < share < 1:
        return np.ones(len(y_true))
    return np.where(y_true, fraud_fraction / share, (1 - fraud_fraction) / (1 - share))


def metrics_at_fraction(
    y_true: np.ndarray, y_score: np.ndarray, threshold: float, fraud_fraction: float | None, log_odds: np.ndarray
) -> dict[str, float]:
    """Precision, recall, F1 and average precision as if that share of the texts were fraud (None: as they are), and
    the share. What is promised on one set is held against another by these: precision hangs on the share.

    Args:
        y_true, y_score: labels (bool) and probabilities of shape (n_samples,).
        threshold: of the probability.
        fraud_fraction: the share.
        log_odds: what the probabilities were made of, to rank by, as in score_metrics.
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
