"""Chooses the system that predict uses, and calibrates the parts of a combination."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score

from stages.classifier.systems import COMBINATIONS, PARTS, add_up
from stages.metrics import Calibration, CalibrationMethod, fit_calibration


class SystemScores(NamedTuple):
    """A system's log-odds of valid, float of shape (n_rows,), and the calibrations of its parts if it adds up some."""

    log_odds: np.ndarray
    parts: dict[str, Calibration]


def scores_of_systems(
    scores: dict[str, np.ndarray], y_true: np.ndarray, method: CalibrationMethod
) -> dict[str, SystemScores]:
    """The scores of all systems on valid.

    Args:
        scores: log-odds of model, baseline and probe, float of shape (n_rows,).
        y_true: bool of shape (n_rows,).
        method: how the parts of a combination are calibrated.
    """
    found = {}
    for system, names in PARTS.items():
        parts = {}
        if system in COMBINATIONS:
            parts = {name: fit_calibration(y_true, scores[name], method) for name in names}
        found[system] = SystemScores(add_up(scores, parts) if parts else scores[system], parts)
    return found


def choose_system(name: str, systems: dict[str, SystemScores], y_true: np.ndarray) -> tuple[str, dict[str, float]]:
    """The system's name, and the average precision of each system on valid.

    For "best" it is the one with the highest average precision. No system was fitted on valid, so these scores are out
    of sample. Only the calibrations of a combination's parts were (two numbers each), and the checkpoint where
    select.checkpoint is best. Of equal systems, the first in the order of PARTS is taken.

    Args:
        name: select.system.
        systems: their scores.
        y_true: bool of shape (n_rows,).
    """
    found = {each: float(average_precision_score(y_true, scores.log_odds)) for each, scores in systems.items()}
    names = {each: each for each in found} | {"best": max(found, key=found.__getitem__)}
    return names[name], found
