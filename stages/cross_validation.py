"""Folds of train that keep units whole: on them the cheap systems choose their parameters."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from stages.text.example import Example

FOLDS = 5
MOST_ROWS = 3000  # of a search over parameters, which takes minutes with more
Folds = list[tuple[np.ndarray, np.ndarray]]  # row numbers to fit on, and to score


def labels_and_units(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Labels (bool) and units (int), both of shape (n_rows,)."""
    return np.array([row.label for row in examples], dtype=bool), np.array([row.unit for row in examples])


def grouped_folds(labels: np.ndarray, units: np.ndarray, seed: int) -> Folds:
    """FOLDS folds, fewer where a class has fewer units. No unit is in two of them. Empty where no folds are possible.

    Args:
        labels: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        seed: of the order in which units are dealt.
    """
    folds = min(FOLDS, *(len(set(units[labels == label].tolist())) for label in (False, True)))
    if folds < 2:
        return []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        found = list(splitter.split(labels, labels, units))
    whole = all(0 < labels[fitted].sum() < len(fitted) and len(scored) for fitted, scored in found)
    return found if whole else []


def search_rows(labels: np.ndarray, units: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers, in order, for a search over parameters: whole units, drawn at random, of at most MOST_ROWS rows.

    Args:
        labels: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        seed: of the draw.
    """
    everything = np.arange(len(units))
    if len(units) <= MOST_ROWS:
        return everything
    names, unit, rows = np.unique(units, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    drawn = order[np.cumsum(rows[order]) <= MOST_ROWS]
    kept = np.flatnonzero(np.isin(unit, drawn))
    return kept if 0 < labels[kept].sum() < len(kept) else everything
