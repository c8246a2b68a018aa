"""Metrics of a binary classifier, its calibration, and the decision threshold.

Fraud is the positive class. A text is called fraud when its score is at or above the threshold. scikit-learn computes
the metrics and sets the conventions (true i, predicted j). Calibrations and thresholds are chosen for many row weights
at once, so that a bootstrap can choose them anew in each resample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np
from scipy.special import expit, logit
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
)

from stages.errors import UserError

CALIBRATION_BINS = 10  # of equal numbers of texts
SLOPES = (float(np.exp(-5)), float(np.exp(2)))  # of a temperature; a slope is never below the first
NEWTON_STEPS = 60
ROUNDING = 1e-9
PRECISIONS = (95, 98, 99)  # percent, of recall_at_precision_*
Labels = np.ndarray | Sequence[bool]
CalibrationMethod = Literal["platt", "temperature"]


@dataclass(frozen=True)
class ThresholdRule:
    """How a decision threshold is chosen.

    name: "max_f1", half of the highest F1 that the calibrated probabilities expect, which is the threshold of the
    highest F1 if they are right (Lipton et al. 2014, arXiv:1402.1892). "max_f1_on_valid", the highest F1 on these very
    texts. "precision_at_least", the highest recall among thresholds whose precision is at least `min_precision`.
    "min_cost", the lowest total cost of false alarms and misses. "fixed", 0.5.
    fraud_fraction: the rule is applied as if this share of the texts were fraud; None takes the texts as they are.
    """

    name: Literal["max_f1", "max_f1_on_valid", "precision_at_least", "min_cost", "fixed"]
    min_precision: float = 0.0
    false_alarm_cost: float = 1.0
    miss_cost: float = 1.0
    fraud_fraction: float | None = None

    @classmethod
    def from_section(cls, select: Mapping[str, Any]) -> "ThresholdRule":
        """The rule that the section `select` of params.yaml, or a model's record of it, describes."""
        cost, name = select["cost"], select["threshold"]
        if "calibration" not in select and name == "max_f1":  # a record older than 0.4
            name = "max_f1_on_valid"
        return cls(name, select["min_precision"], cost["fp"], cost["fn"], select["fraud_fraction"])


BEST_F1 = ThresholdRule("max_f1_on_valid")


@dataclass(frozen=True)
class Calibration:
    """The line from scores to log-odds of fraud (Platt 1999). Temperature scaling has offset 0."""

    slope: float = 1.0
    offset: float = 0.0

    @property
    def temperature(self) -> float:
        return 1 / self.slope

    @property
    def at_bound(self) -> bool:
        """Whether the slope is the least one allowed, since the scores rank the texts no better than chance."""
        return self.slope <= SLOPES[0] * (1 + ROUNDING)

    def log_odds(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated log-odds of fraud, shape (n_samples,)."""
        return np.asarray(scores) * self.slope + self.offset

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probability of fraud, shape (n_samples,)."""
        return expit(self.log_odds(scores))


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
    y_true: Labels, y_score: np.ndarray, threshold: float | np.ndarray, log_odds: np.ndarray | None = None
) -> dict[str, float]:
    """Decision metrics at the threshold, ranking metrics, probability metrics, and the threshold itself.

    Args:
        y_true: bool of shape (n_samples,).
        y_score: probabilities of fraud, shape (n_samples,).
        threshold: a text is called fraud when its probability is at or above it. One for each text, shape (n_samples,),
            is possible, too; the mean is reported.
        log_odds: the log-odds behind the probabilities, shape (n_samples,). Texts are ranked by them, because near 1
            different log-odds round to the same probability. None ranks by y_score.
    """
    order = y_score if log_odds is None else log_odds
    return {
        **decision_metrics(y_true, np.asarray(y_score) >= threshold),
        **ranking_metrics(y_true, order),
        **recall_at_precision(y_true, order),
        **probability_metrics(y_true, y_score),
        "threshold": float(np.mean(threshold)),
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
    """Brier score, log loss in nats, and calibration error."""
    y_true, probability = np.asarray(y_true, dtype=bool), np.asarray(probability)
    square = squared_calibration_error(y_true, probability, np.ones((1, len(y_true))), calibration_bins(probability))
    return {
        "brier": float(brier_score_loss(y_true, probability, pos_label=1)),
        "log_loss": float(log_loss(y_true, probability, labels=[False, True])),
        "calibration_error": float(np.sqrt(square[0].clip(0))),
    }


def calibration_bins(probability: np.ndarray) -> np.ndarray:
    """The bin of each probability, from 0, shape (n_samples,). Bins hold equally many texts, but for equal ones."""
    edges = np.quantile(probability, np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS)
    return np.searchsorted(edges, probability, side="left")


def squared_calibration_error(
    y_true: np.ndarray, probability: np.ndarray, weights: np.ndarray, bins: np.ndarray
) -> np.ndarray:
    """The mean squared gap between probability and share of fraud in bins, without bias, shape (samples,).

    A calibrated model has gaps by chance alone. Their expected square is subtracted (Kumar et al. 2019,
    arXiv:1909.10155), so the result may be below 0. A bin with a single text is left out.

    Args:
        y_true: bool of shape (n_rows,).
        probability: float of shape (n_rows,) or (samples, n_rows).
        weights: of rows, float of shape (samples, n_rows).
        bins: the bin of each row, int of shape (n_rows,).
    """
    member = (bins[:, None] == np.arange(CALIBRATION_BINS)).astype(float)
    rows, fraud = weights @ member, (weights * y_true) @ member
    some = np.where(rows > 1, rows, np.inf)
    gap, share = ((weights * (y_true - probability)) @ member) / some, fraud / some
    return (rows * (gap**2 - share * (1 - share) / (some - 1))).sum(axis=1) / rows.sum(axis=1)


def fit_calibration(
    y_true: Labels, log_odds: np.ndarray, method: CalibrationMethod, weights: np.ndarray | None = None
) -> Calibration:
    """The calibration with the lowest log loss on some rows.

    Args:
        y_true: bool of shape (n_rows,).
        log_odds: scores of shape (n_rows,).
        method: "temperature" fits the slope alone, between e^-5 and e^2. "platt" fits the offset too, to labels that
            are smoothed by one text of each class (Platt 1999), so that classes without overlap have a finite slope.
            A slope is at least e^-5: scores that rank texts no better than chance keep their order.
        weights: of the rows, shape (n_rows,); None weights all equally.
    """
    weights = np.ones(len(y_true)) if weights is None else np.asarray(weights)
    slope, offset = fit_calibrations(y_true, np.asarray(log_odds), method, weights[None])
    # A record holds the temperature: the slope is rounded to one that its temperature gives back.
    return Calibration(1 / (1 / float(slope[0])), float(offset[0]))


def fit_calibrations(
    y_true: Labels, log_odds: np.ndarray, method: CalibrationMethod, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`fit_calibration` for many row weights: slopes and offsets, both of shape (samples,).

    Args:
        y_true: bool of shape (n_rows,).
        log_odds: scores of shape (n_rows,) or (samples, n_rows).
        method: as in fit_calibration.
        weights: float of shape (samples, n_rows).
    """
    y_true, scores = np.asarray(y_true, dtype=bool), np.atleast_2d(np.asarray(log_odds, dtype=float))
    fraud, harmless = weights @ y_true, weights @ ~y_true
    smooth = {"platt": True, "temperature": False}[method]
    targets = np.where(
        y_true,
        (fraud[:, None] + smooth) / (fraud[:, None] + 2 * smooth).clip(1e-300),
        smooth / (harmless[:, None] + 2 * smooth).clip(1e-300),
    )
    centre, scale = (scores.mean() if smooth else 0.0), (scores.std() or 1.0)
    line = newton((scores - centre) / scale, targets, weights, np.array([True, smooth]))
    least = SLOPES[0] * scale
    flat = line[:, 0] < least
    if smooth and flat.any():
        x = (scores if len(scores) == 1 else scores[flat]) - centre
        start = np.column_stack([np.full(flat.sum(), least), np.zeros(flat.sum())])
        line[flat] = newton(x / scale, targets[flat], weights[flat], np.array([False, True]), start)
    slope = line[:, 0].clip(least, np.inf if smooth else SLOPES[1] * scale) / scale
    return slope, line[:, 1] - slope * centre


def newton(
    x: np.ndarray, targets: np.ndarray, weights: np.ndarray, free: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """Logistic regressions on one feature by Newton's method with step halving: slope and intercept, (samples, 2).

    Args:
        x: the feature, shape (1, n_rows) or (samples, n_rows).
        targets, weights: shape (samples, n_rows).
        free: bool of shape (2,): whether slope and intercept are fitted.
        start: values to begin with, shape (samples, 2); None is 0.
    """
    line = np.zeros((len(weights), 2)) if start is None else start.copy()
    left = np.arange(len(weights))
    for _ in range(NEWTON_STEPS):
        rows, wanted, weight = (x if len(x) == 1 else x[left]), targets[left], weights[left]
        before, step, decrement = newton_step(rows, wanted, weight, line[left], free)
        worse = np.ones(len(left), dtype=bool)
        for _ in range(30):  # a full step may overshoot far from the optimum
            worse = worse & ~(smooth_loss(rows, wanted, weight, line[left] - step) <= before)
            if not worse.any():
                break
            step[worse] /= 2
        step[worse] = 0
        line[left] -= step
        left = left[(decrement > 1e-12 * weight.sum(axis=1)) & ~worse & (np.abs(line[left, 0]) < 1e4)]
        if not len(left):
            break
    return line


def smooth_loss(x: np.ndarray, targets: np.ndarray, weights: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Summed log loss, shape (samples,).

    Args:
        x: the feature, shape (1, n_rows) or (samples, n_rows).
        targets, weights: shape (samples, n_rows).
        line: slope and intercept, shape (samples, 2).
    """
    z = x * line[:, :1] + line[:, 1:]
    return (weights * (np.logaddexp(0, z) - targets * z)).sum(axis=1)


def newton_step(
    x: np.ndarray, targets: np.ndarray, weights: np.ndarray, line: np.ndarray, free: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss (samples,), Newton step (samples, 2) and decrement (samples,).

    Args:
        x: the feature, shape (1, n_rows) or (samples, n_rows).
        targets, weights: shape (samples, n_rows).
        line: slope and intercept, shape (samples, 2).
        free: bool of shape (2,): whether slope and intercept are fitted.
    """
    p = expit(x * line[:, :1] + line[:, 1:])
    error, curvature = weights * (p - targets), weights * p * (1 - p)
    bent = curvature * x
    gradient = np.column_stack([(error * x).sum(axis=1), error.sum(axis=1)]) * free
    hessian = np.empty((len(line), 2, 2))
    hessian[:, 0, 0], hessian[:, 1, 1] = (bent * x).sum(axis=1), curvature.sum(axis=1)
    hessian[:, 0, 1] = hessian[:, 1, 0] = bent.sum(axis=1) * free.all()
    hessian += 1e-12 * weights.sum(axis=1)[:, None, None] * np.eye(2)
    step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    return smooth_loss(x, targets, weights, line), step, (gradient * step).sum(axis=1)


def choose_threshold(y_true: Labels, y_score: np.ndarray, rule: ThresholdRule) -> float:
    """The best decision threshold on these texts by a rule.

    Equal scores are one candidate. Ties go to the higher threshold. The threshold lies midway to the next lower score
    (or 0), so that it does not depend on the last digits of one text's score. The rule max_f1 takes y_score as
    calibrated probabilities, and its threshold needs no text near it.
    Raises UserError if the rule asks for a precision that no threshold reaches.
    """
    y_true, y_score = np.asarray(y_true, dtype=bool), np.asarray(y_score, dtype=float)
    threshold = float(choose_thresholds(y_true, y_score, rule, np.ones((1, len(y_true))))[0])
    if threshold == np.inf:
        weights = fraction_weights(y_true, rule.fraud_fraction)
        precision, _, _ = precision_recall_curve(y_true, y_score, sample_weight=weights)
        raise UserError(
            f"no threshold reaches select.min_precision {rule.min_precision} on valid (the best precision is "
            f"{precision[:-1].max():.3f}): lower it, or choose select.threshold max_f1"
        )
    return threshold


def choose_thresholds(y_true: np.ndarray, y_score: np.ndarray, rule: ThresholdRule, weights: np.ndarray) -> np.ndarray:
    """`choose_threshold` for many row weights, shape (samples,); infinite where no threshold reaches the precision.

    Args:
        y_true: bool of shape (n_rows,).
        y_score: float of shape (n_rows,) or (samples, n_rows).
        rule: how to choose.
        weights: float of shape (samples, n_rows). A row without weight is not there.
    """
    if rule.name == "fixed":
        return np.full(len(weights), 0.5)
    y_score = np.atleast_2d(y_score)
    order = np.argsort(-y_score, axis=1, kind="stable")
    score, there = (np.take_along_axis(values, order, axis=1) for values in (y_score, weights))
    label = y_true[order]
    ratios = prior_ratios(y_true, weights, rule.fraud_fraction)
    ends = np.diff(score, axis=1, append=-np.inf) != 0
    if rule.name == "max_f1":
        return half_best_f1(score, there, ends, *ratios)
    tp, fp = np.cumsum(there * label * ratios[0], axis=1), np.cumsum(there * ~label * ratios[1], axis=1)
    fn = tp[:, -1:] - tp
    flagged = (tp + fp).clip(1e-300)
    if rule.name == "max_f1_on_valid":
        gain = 2 * tp / (flagged + tp + fn)
    elif rule.name == "min_cost":
        gain = -(rule.false_alarm_cost * fp + rule.miss_cost * fn)
    elif rule.name == "precision_at_least":
        gain = np.where(tp / flagged >= rule.min_precision - ROUNDING, tp, -np.inf)
    else:
        assert_never(rule.name)
    gain = np.where(ends & (tp + fp > 0), gain, -np.inf)
    best = gain.max(axis=1)
    as_good = gain >= (best - ROUNDING * np.abs(best))[:, None]
    threshold = midway(score, there > 0, np.argmax(as_good, axis=1))
    if rule.name == "min_cost":  # every alarm may cost more than it saves
        none = best < -rule.miss_cost * tp[:, -1]
        highest = np.where(there > 0, score, -np.inf).max(axis=1)
        threshold = np.where(none, np.nextafter(highest, np.inf), threshold)
    return np.where(best == -np.inf, np.inf, threshold)


def prior_ratios(
    y_true: np.ndarray, weights: np.ndarray, fraud_fraction: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """How much more often fraud, and harmless texts, occur at `fraud_fraction` than among the rows: (samples, 1) each.

    Args:
        y_true: bool of shape (n_rows,).
        weights: float of shape (samples, n_rows).
        fraud_fraction: None takes the rows as they are, and so do rows of a single class.
    """
    share = (weights @ y_true / weights.sum(axis=1).clip(1e-300))[:, None]
    both = (share > 0) & (share < 1)
    if fraud_fraction is None:
        both = np.zeros_like(both)
    wanted = fraud_fraction or 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(both, wanted / share, 1.0), np.where(both, (1 - wanted) / (1 - share), 1.0)


def half_best_f1(
    probability: np.ndarray, weights: np.ndarray, ends: np.ndarray, fraud: np.ndarray, harmless: np.ndarray
) -> np.ndarray:
    """Half of the highest expected F1 over all cuts, as a threshold of the given probabilities, shape (samples,).

    With r = `fraud` and q = `harmless`, a text of probability p stands for r p + q (1 - p) texts at the other share of
    fraud, r p of which are fraud. There its odds are r / q times as high. So F* is the highest
    2 sum_{i<=k} r p_i / (sum_{i<=k} (r p_i + q (1 - p_i)) + sum_i r p_i), and F* / 2 is taken back by q / r in odds.

    Args:
        probability: falling, float of shape (1 or samples, n_rows).
        weights: float of shape (samples, n_rows).
        ends: whether a row is the last of equal probabilities, bool like probability.
        fraud, harmless: of prior_ratios.
    """
    is_fraud = weights * probability * fraud
    stands_for = is_fraud + weights * (1 - probability) * harmless
    f1 = (
        2
        * np.cumsum(is_fraud, axis=1)
        / (np.cumsum(stands_for, axis=1) + is_fraud.sum(axis=1, keepdims=True)).clip(1e-300)
    )
    half = np.where(ends, f1, 0).max(axis=1).clip(1e-300) / 2
    return expit(logit(half) + np.log(harmless / fraud)[:, 0])


def midway(score: np.ndarray, there: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The number midway from a score to the next lower one that has a row, or 0; shape (samples,).

    Args:
        score: falling, float of shape (1 or samples, n_rows).
        there: whether the row counts, bool of shape (samples, n_rows).
        best: column of the score, the last of equal ones, int of shape (samples,).
    """
    index = np.arange(score.shape[1])
    later = there & (index > best[:, None])
    following = np.argmax(later, axis=1)[:, None]
    score = np.broadcast_to(score, there.shape)
    at = np.take_along_axis(score, best[:, None], axis=1)[:, 0]
    below = np.where(later.any(axis=1), np.take_along_axis(score, following, axis=1)[:, 0], np.minimum(0.0, at))
    middle = (at + below) / 2
    return np.where(middle > below, middle, at)  # neighbouring floats have none


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
        threshold: a text is called fraud when its probability is at or above it. One for each text, shape (n_samples,),
            is possible, too.
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
