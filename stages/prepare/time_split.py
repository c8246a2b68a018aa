"""Splits by time: train holds the earliest texts, test the latest. No text of train is later than any boundary."""

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.data.lines import DataError
from stages.params import Prepare
from stages.prepare.manifest import SPLITS
from stages.text.example import Example


def names_by_time(
    pool: list[Example], units: np.ndarray, times: Mapping[str, datetime.datetime], params: Prepare
) -> tuple[np.ndarray, dict[str, Any]]:
    """The split of each row, text of shape (n_rows,), and the boundaries.

    A unit counts as of its latest row and stays whole. So train ends before valid begins, and valid before test; rows
    of a case that goes on later move with it. Texts of one time are never parted.

    Args:
        pool: n_rows rows.
        units: int of shape (n_rows,), the unit of each row, from 0.
        times: of each row, by its source.
        params: the shares of valid and test.
    """
    of_row = np.array([times[example.source].timestamp() for example in pool])
    latest = np.full(int(units.max()) + 1, -np.inf)
    np.maximum.at(latest, units, of_row)
    moment, rows = np.unique(latest[units], return_counts=True)
    if len(moment) < len(SPLITS):
        raise DataError(
            f"the pool has {len(moment)} different times of units (groups, joined where texts are similar), too few to "
            "split by: leave columns.time out, or give finer groups"
        )
    before = np.cumsum(rows)[:-1] / len(pool)  # the share of the rows up to each moment but the last
    train_end = int(np.abs(before[:-1] - (1 - params.valid_fraction - params.test_fraction)).argmin())
    valid_end = train_end + 1 + int(np.abs(before[train_end + 1 :] - (1 - params.test_fraction)).argmin())
    part = np.searchsorted(moment[[train_end, valid_end]], latest[units])
    train_until, valid_until = (iso(moment[end]) for end in (train_end, valid_end))
    early = int((of_row[part > 0] <= moment[train_end]).sum())
    return np.array(SPLITS)[part], {
        "train_until": train_until,
        "valid_until": valid_until,
        "held_out_rows_before": early,
    }


def iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
