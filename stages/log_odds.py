"""Files of log-odds of fraud: a system's scores of a set, one for each row, in the order of the set."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stages.artifacts import read_csv, write_csv

COLUMN = "log_odds"


def write_log_odds(path: Path, values: Iterable[float]) -> None:
    """Writes them with all digits."""
    write_csv(path, ({COLUMN: repr(float(value))} for value in values), [COLUMN])


def read_log_odds(path: Path) -> np.ndarray:
    """The column log_odds of a CSV file, float of shape (n_rows,)."""
    return np.array([float(row[COLUMN]) for row in read_csv(path)])
