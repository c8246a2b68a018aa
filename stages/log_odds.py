"""Files of log-odds of fraud: a system's scores of a set, one for each row, in the order of the set."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stages.artifacts import read_csv, write_csv
from stages.errors import UserError
from stages.paths import BASELINE, PROBE

COLUMN = "log_odds"
STORED = {"baseline": BASELINE, "probe": PROBE}  # systems whose stages write the log-odds of each set


def write_log_odds(path: Path, values: Iterable[float]) -> None:
    """Writes them with all digits."""
    write_csv(path, ({COLUMN: repr(float(value))} for value in values), [COLUMN])


def read_log_odds(path: Path, rows: int) -> np.ndarray:
    """The column log_odds of a CSV file, float of shape (rows,). Raises UserError where it lacks one."""
    try:
        values = np.array([float(row[COLUMN]) for row in read_csv(path)])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} can't be read: {type(error).__name__}: {error}; expected a score for each row: run `dvc repro`"
        ) from error
    if len(values) != rows:
        raise UserError(f"{path} has {len(values)} rows; expected {rows}, as its set has: run `dvc repro`")
    return values
