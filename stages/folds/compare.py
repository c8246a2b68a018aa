"""The comparison of systems over all rows of a pool, by scores that were made out of fold.

What evaluate chooses on valid is chosen here on the other four folds: a threshold, and the calibration of a sum.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.special import expit

from stages.classifier.systems import CHEAP, COMBINATIONS
from stages.errors import UserError
from stages.evaluate.choices import NO_ALARM
from stages.evaluate.compare import compare_rows
from stages.evaluate.predictors import Predictions
from stages.metrics import ThresholdRule, choose_threshold, ranking_metrics
from stages.out_of_fold import calibrated_by
from stages.params import Params
from stages.text.example import Example


def compare_out_of_fold(
    pool: list[Example], scores: Mapping[str, np.ndarray], train: Collection[str], chosen: Params
) -> dict[str, Any]:
    """`compare_rows` over the rows of a pool. Its intervals take what the other folds chose as given.

    Args:
        pool: n_rows rows.
        scores: calibrated log-odds by system, each of shape (n_rows,).
        train: sources of the rows of train, on which the best cheap system is chosen.
        chosen: all params.
    """
    y_true = np.array([example.label for example in pool])
    fold = np.array([example.fold for example in pool])
    scores = with_sums(scores, y_true, fold)
    rule = ThresholdRule.from_section(asdict(chosen.select))
    systems = {name: predictions(values, y_true, fold, rule) for name, values in scores.items()}
    kept = np.array([example.source in train for example in pool])
    best = best_cheap({name: values[kept] for name, values in scores.items()}, y_true[kept])
    return compare_rows(pool, systems, chosen.evaluate.bootstrap_samples, best)


def with_sums(scores: Mapping[str, np.ndarray], y_true: np.ndarray, fold: np.ndarray) -> dict[str, np.ndarray]:
    """The scores, and those of the combinations whose parts are there: the sum, calibrated on the other folds.

    Args:
        scores: calibrated log-odds by system, each of shape (n_rows,).
        y_true: bool of shape (n_rows,).
        fold: int of shape (n_rows,).
    """
    found = dict(scores)
    for name, (one, other) in COMBINATIONS.items():
        if one in scores and other in scores:
            found[name] = recalibrated(scores[one] + scores[other], y_true, fold)
    return found


def recalibrated(log_odds: np.ndarray, y_true: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The log-odds of each row, calibrated on the other folds; all of shape (n_rows,)."""
    return by_other_folds(fold, lambda here, there: calibrated_by(y_true[there], log_odds[there], log_odds[here]))


def predictions(log_odds: np.ndarray, y_true: np.ndarray, fold: np.ndarray, rule: ThresholdRule) -> Predictions:
    """The predictions of a system, with a threshold for each row that the other folds chose.

    If no threshold keeps the rule's promise on the other folds, the system raises no alarm. The log-odds, which rank
    the rows, are calibrated: scores of different folds come from different fits.

    Args:
        log_odds: calibrated, float of shape (n_rows,).
        y_true: bool of shape (n_rows,).
        fold: int of shape (n_rows,).
        rule: how thresholds are chosen.
    """
    probability = expit(log_odds)

    def threshold(here: np.ndarray, there: np.ndarray) -> float:
        try:
            return choose_threshold(y_true[there], probability[there], rule)
        except UserError:
            return NO_ALARM

    return Predictions(probability, by_other_folds(fold, threshold), log_odds)


def by_other_folds(fold: np.ndarray, value: Callable[[np.ndarray, np.ndarray], Any]) -> np.ndarray:
    """Values for each row that are found on the rows of other folds, float of shape (n_rows,).

    Args:
        fold: int of shape (n_rows,).
        value: gets the rows of a fold and those of the others, each bool of shape (n_rows,).
    """
    values = np.empty(len(fold))
    for each in np.unique(fold):
        values[fold == each] = value(fold == each, fold != each)
    return values


def best_cheap(scores: Mapping[str, np.ndarray], y_true: np.ndarray) -> str:
    """The cheap system with the highest average precision; the first of several. y_true: bool of shape (n_rows,)."""
    found = {name: ranking_metrics(y_true, scores[name])["average_precision"] for name in CHEAP if name in scores}
    return max(found, key=lambda name: found[name])
