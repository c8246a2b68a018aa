"""Which checkpoint, by what the train stage wrote at each evaluation."""

from pathlib import Path

import numpy as np

from stages.model.score import LabelScores
from stages.paths import VALID_SCORES
from stages.report import read_csv


def best_step(history: list[dict[str, str]], metric: str) -> int:
    """The step whose `metric` on valid is best: lowest for loss, highest for the others; the earliest of equals."""
    sign = {"loss": -1, "average_precision": 1, "f1": 1}[metric]
    best = max(history, key=lambda row: sign * float(row[metric]))
    return int(best["step"])


def read_valid_scores(checkpoint: Path) -> tuple[np.ndarray, LabelScores]:
    """Labels (bool, shape (N,)) and scores of valid at a checkpoint."""
    rows = read_csv(checkpoint / VALID_SCORES)
    y_true = np.array([row["y_true"] == "1" for row in rows])
    return y_true, LabelScores(np.array([[float(row["log_p_false"]), float(row["log_p_true"])] for row in rows]))
