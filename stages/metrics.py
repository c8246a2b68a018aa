"""Metrics of a binary classifier, and the decision threshold.

Fraud is the positive class. A text is called fraud when its score is at or above the threshold. scikit-learn computes
the metrics and sets the conventions (true i, predicted j).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

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

CALIBRATION_BINS = 15  # of equal width, as in Guo et al. 2017 (arXiv:1706.04599)
ROUNDING = 1e-9
PRECISIONS = (95, 98, 99)  # percent, of recall_at_precision_*
Labels = np.ndarray | Sequence[bool]


@dataclass(frozen=True)
class ThresholdRule:
    """How a decision threshold is chosen.

    name: "max_f1", the highest F1. "precision_at_least", the highest recall among thresholds whose precision is at
    least `min_precision`. "min_cost", the lowest total cost of false alarms and misses. "fixed", 0.5.
    fraud_fraction: the rule is applied as if this share of the texts were fraud; None takes the texts as they are.
    """

    name: Literal["max_f1", "precision_at_least", "min_cost", "fixed"]
    min_precision: float = 0.0
    false_alarm_cost: float = 1.0
    miss_cost: float = 1.0
    fraud_fraction: float | None = None

    @classmethod
    def from_section(cls, select: Mapping[str, Any]) -> "ThresholdRule":
        """The rule that the section `select` of params.yaml, or a model's record of it, describes."""
        cost = select["cost"]
        return cls(select["threshold"], select["min_precision"], cost["fp"], cost["fn"], select["fraud_fraction"])


BEST_F1 = ThresholdRule("max_f1")


def decision_metrics(y_true: Labels, y_pred: np.ndarray) -> dict[str, float]:
    """Counts, precision, recall, F1, and false alarms per 1,000 harmless texts.

    Args:
        y_true, y_pred: array-like of bool of shape (n_samples,).

    Precision is 0 without a positive prediction, and recall is 0 without a positive text. Without any rows all metrics
    are 0. `undefined_metrics` names these cases. Without a harmless text the key false_alarms_per_1000 is missing.
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
    """The keys of `decision_metrics` that are 0 only by convention.

    Precision is undefined without an alarm. Precision, recall and F1 are undefined without any fraud to find.
    """
    if decided["tp"] + decided["fn"] == 0:
        return {"precision", "recall", "f1"}
    return {"precision"} if decided["tp"] + decided["fp"] == 0 else set()


def ranking_metrics(y_true: Labels, y_score: np.ndarray) -> dict[str, float]:
    """Average precision and area under the ROC curve. They depend on the order of the scores only, and need both
    classes."""
    return {
        "average_precision": float(average_precision_score(y_true, y_score)),
        "roc_auc": float(roc_auc_score(y_true, y_score)),
    }


def score_metrics(
    y_true: Labels, y_score: np.ndarray, threshold: float, log_odds: np.ndarray | None = None
) -> dict[str, float]:
    """Decision metrics at the threshold, ranking metrics, probability metrics, and the threshold itself.

    Args:
        y_true: bool of shape (n_samples,).
        y_score: probabilities of fraud, shape (n_samples,).
        threshold: a text is called fraud when its probability is at or above it.
        log_odds: the log-odds behind the probabilities, shape (n_samples,). Texts are ranked by them, because near 1
            different log-odds round to the same probability. None ranks by y_score.
    """
    order = y_score if log_odds is None else log_odds
    return {
        **decision_metrics(y_true, np.asarray(y_score) >= threshold),
        **ranking_metrics(y_true, order),
        **recall_at_precision(y_true, order),
        **probability_metrics(y_true, y_score),
        "threshold": float(threshold),
    }


def recall_at_precision(y_true: Labels, y_score: np.ndarray) -> dict[str, float]:
    """The highest recall among thresholds whose precision is at least 0.95, 0.98 and 0.99; 0 where there is none."""
    precision, recall, _ = precision_recall_curve(y_true, y_score)
    precision, recall = precision[:-1], recall[:-1]  # the last point belongs to no threshold
    return {
        f"recall_at_precision_{percent}": float(recall[precision >= percent / 100].max(initial=0.0))
        for percent in PRECISIONS
    }


def probability_metrics(y_true: Labels, probability: np.ndarray) -> dict[str, float]:
    """Brier score and expected calibration error.

    In each bin of probabilities the calibration error takes the gap between the mean probability and the share of
    fraud. It is the mean of the gaps, weighted by the number of texts.
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


def fit_temperature(y_true: Labels, log_odds: np.ndarray) -> float:
    """The temperature T for which expit(log_odds / T) has the lowest log loss, between e^-2 and e^5."""
    sign = np.where(np.asarray(y_true, dtype=bool), 1.0, -1.0)
    log_odds = np.asarray(log_odds)

    def log_loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -sign * log_odds / np.exp(log_temperature)).mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=(-2, 5), method="bounded").x))


def calibrated(log_odds: np.ndarray, temperature: float) -> np.ndarray:
    """Probability of fraud, shape (n_samples,)."""
    return expit(np.asarray(log_odds) / temperature)


def choose_threshold(y_true: Labels, y_score: np.ndarray, rule: ThresholdRule) -> float:
    """The best decision threshold on these texts by a rule.

    Ties go to the higher threshold. The threshold lies midway to the next lower score (or 0), so that it does not
    depend on the last digits of one text's score.
    Raises UserError if the rule asks for a precision that no threshold reaches.
    """
    if rule.name == "fixed":
        return 0.5
    weights = fraction_weights(y_true, rule.fraud_fraction)
    _, fp, fn, tp, thresholds = confusion_matrix_at_thresholds(y_true, y_score, sample_weight=weights)
    precision = tp / (tp + fp)
    if rule.name == "max_f1":
        gain = 2 * tp / (2 * tp + fp + fn)
    elif rule.name == "min_cost":
        gain = -(rule.false_alarm_cost * fp + rule.miss_cost * fn)
        if gain.max() < -rule.miss_cost * tp[-1]:  # every alarm costs more than it saves
            return float(np.nextafter(np.max(y_score), np.inf))
    elif rule.name == "precision_at_least":
        gain = np.where(precision >= rule.min_precision - ROUNDING, tp, -1)
        if gain.max() < 0:
            raise UserError(
                f"no threshold reaches select.min_precision {rule.min_precision} on valid (the best precision is "
                f"{precision.max():.3f}): lower it, or choose select.threshold max_f1"
            )
    else:
        assert_never(rule.name)
    best = int(np.argmax(gain))  # the thresholds fall
    below = thresholds[best + 1] if best + 1 < len(thresholds) else min(0.0, thresholds[best])
    middle = (thresholds[best] + below) / 2
    return float(middle if middle > below else thresholds[best])  # neighbouring floats have none


def fraction_weights(y_true: Labels, fraud_fraction: float | None) -> np.ndarray:
    """Weights of shape (n_samples,) under which `fraud_fraction` of the texts is fraud; None weights all equally."""
    y_true = np.asarray(y_true, dtype=bool)
    share = y_true.mean()
    if fraud_fraction is None or not 0 < share < 1:
        return np.ones(len(y_true))
    return np.where(y_true, fraud_fraction / share, (1 - fraud_fraction) / (1 - share))


def metrics_at_fraction(
    y_true: Labels, y_score: np.ndarray, threshold: float, fraud_fraction: float | None, log_odds: np.ndarray
) -> dict[str, float]:
    """Precision, recall, F1 and average precision as if a given share of the texts were fraud, and that share.

    Precision depends on the share of fraud. These metrics make a promise on one set comparable with another set.

    Args:
        y_true: bool of shape (n_samples,).
        y_score: probabilities of fraud, shape (n_samples,).
        threshold: a text is called fraud when its probability is at or above it.
        fraud_fraction: the share of fraud, between 0 and 1; None takes the texts as they are.
        log_odds: the log-odds behind the probabilities, shape (n_samples,), to rank by.
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
