"""Out-of-fold scores: each row of a pool is scored by a system that was trained without the row's fold.

Stages prepare and probe write them for their systems, `make folds` for the model, and stage folds reads them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from stages.artifacts import read_csv, write_csv
from stages.errors import UserError
from stages.metrics import Labels, fit_calibration

FIFTHS = 5  # folds of a pool
SCORE_COLUMNS = ["source", "log_odds", "calibrated"]
SPLIT_COLUMNS = ["source", *(f"fold_{fold}" for fold in range(FIFTHS))]
Score = tuple[float, float]  # log-odds of fraud: as scored, and calibrated on the valid of that fold


def calibrated_by(y_true: Labels, log_odds: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Log-odds of new scores, calibrated by Platt's method, shape (n_new,).

    Args:
        y_true: labels of the rows on which the calibration is fitted, shape (n_rows,).
        log_odds: their scores, shape (n_rows,).
        new: scores of other rows, shape (n_new,).
    """
    return fit_calibration(y_true, log_odds, "platt").log_odds(np.asarray(new))


def write_scores(path: Path, sources: Iterable[str], scores: Iterable[Score]) -> None:
    """Writes the scores of rows, which are named by their sources."""
    rows = zip(sources, scores, strict=True)
    write_csv(
        path,
        ({"source": source, "log_odds": repr(raw), "calibrated": repr(value)} for source, (raw, value) in rows),
        SCORE_COLUMNS,
    )


def read_scores(path: Path, sources: Sequence[str]) -> np.ndarray:
    """The calibrated log-odds of rows, shape (n_rows,). Raises UserError if the file lacks one of them."""
    scores = {row["source"]: float(row["calibrated"]) for row in read_csv(path)}
    missing = [source for source in sources if source not in scores]
    if missing:
        raise UserError(
            f"{path} has no score for {len(missing)} of {len(sources)} rows, the first {missing[0]}; expected the "
            "rows of data/processed: run `dvc repro`"
        )
    return np.array([scores[source] for source in sources])
