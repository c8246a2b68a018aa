"""The systems that can classify texts, and how a combination adds up its parts."""

from collections.abc import Mapping

import numpy as np

from stages.metrics import Calibration

# What each system scores a text by. A combination is the sum of its parts' calibrated log-odds: weights would have to
# be chosen on valid, which is too small for that.
PARTS = {
    "model": ("model",),
    "baseline": ("baseline",),
    "probe": ("probe",),
    "combined": ("model", "baseline"),
    "combined_cheap": ("probe", "baseline"),
}
CHEAP = ("baseline", "probe", "combined_cheap")  # without training of the base model
COMBINATIONS = {system: parts for system, parts in PARTS.items() if len(parts) > 1}


def add_up(scores: Mapping[str, np.ndarray], parts: Mapping[str, Calibration]) -> np.ndarray:
    """The log-odds of a combination before its own calibration, float of shape (n_rows,).

    Args:
        scores: log-odds of each part as scored, float of shape (n_rows,).
        parts: the calibration of each part.
    """
    return np.sum([calibration.log_odds(scores[part]) for part, calibration in parts.items()], axis=0)
