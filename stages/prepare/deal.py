"""Deals units to splits and folds so that each gets its share of the rows, of fraud and of every category."""

import itertools
import math
import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from stages.data.lines import DataError
from stages.text.example import Example

MOST_TRIED = 20_000  # combinations of folds; 4 of 20 are 4,845


def renumbered(units: np.ndarray) -> np.ndarray:
    """The units as 0, 1, … in the order of their first rows, so that other numbers for them deal the same."""
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[unit]


def count_strata(pool: list[Example], part: np.ndarray, parts: int) -> np.ndarray:
    """Weighted rows of each part (a unit or a fold), shape (parts, n_columns).

    The columns are each label in each category, each label, and all rows. Labels and size weigh as much as all
    categories together: with many categories, the share of fraud would otherwise be one aim of many.

    Args:
        pool: n_rows rows.
        part: int of shape (n_rows,), the part of each row, from 0.
        parts: their number.
    """
    strata = np.array([f"{example.label} {example.category}" for example in pool])
    labels = np.array([str(example.label) for example in pool])
    columns = []
    for values in (strata, labels, np.full(len(pool), "")):
        names, column = np.unique(values, return_inverse=True)
        counts = np.zeros((parts, len(names)))
        np.add.at(counts, (part, column), 1)
        columns.append(counts)
    weight = columns[0].shape[1]
    return np.hstack([columns[0], weight * columns[1], weight * columns[2]])


def stratified_folds(pool: list[Example], units: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each row, int of shape (n_rows,), from 0. No unit is in two folds.

    Args:
        pool: n_rows rows.
        units: int of shape (n_rows,), the unit of each row.
        folds: their number; at least as many units and rows of each class.
        seed: of the order in which equal units are dealt.
    """
    strata = np.array([f"{example.label} {example.category}" for example in pool])
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold_of = np.zeros(len(pool), dtype=int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # a stratum may have few rows
        try:
            for number, (_, rows) in enumerate(splitter.split(strata, strata, renumbered(units))):
                fold_of[rows] = number
        except ValueError as error:
            raise DataError(f"the pool can't be split: {error}") from None
    return fold_of


def choose_folds(counts: np.ndarray, target: np.ndarray, number: int, seed: int) -> tuple[int, ...]:
    """The `number` folds whose rows together are nearest to the target: the least sum of differences over the columns.

    All combinations are tried, or MOST_TRIED random ones where there are more. Ties go to the first.

    Args:
        counts: weighted rows of each fold, shape (n_folds, n_columns).
        target: what the chosen folds should have together, shape (n_columns,).
        number: how many folds to choose, from 1 to n_folds.
        seed: of the random combinations.
    """
    folds = len(counts)
    if math.comb(folds, number) <= MOST_TRIED:
        tried = np.array(list(itertools.combinations(range(folds), number)))
    else:
        rng = np.random.default_rng(seed)
        tried = np.sort(rng.permuted(np.tile(np.arange(folds), (MOST_TRIED, 1)), axis=1)[:, :number], axis=1)
    chosen = np.zeros((len(tried), folds))
    np.put_along_axis(chosen, tried, 1, axis=1)
    best = np.argmin(np.abs(chosen @ counts - target).sum(axis=1).round(6))
    return tuple(tried[best].tolist())


def deal_units(counts: np.ndarray, order: np.ndarray, part: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Deals the units that have no part yet, each to the part where it helps the balance most. Returns the parts.

    Args:
        counts: weighted rows of each unit, shape (n_units, n_columns).
        order: the order in which units are dealt, int of shape (n_units,).
        part: the part of each unit, int of shape (n_units,), and -1 for the units to deal.
        shares: the share of all rows that each part should have, shape (n_parts,).
    """
    part = part.copy()
    target = shares[:, None] * counts.sum(axis=0)
    held = np.zeros_like(target)
    np.add.at(held, part[part >= 0], counts[part >= 0])
    for unit in order[part[order] < 0]:
        gained = np.abs(held + counts[unit] - target) - np.abs(held - target)
        # Where two parts gain the same, the one that has the least of its share.
        fullness = held.sum(axis=1) / np.maximum(target.sum(axis=1), 1e-9)
        part[unit] = np.lexsort((fullness, gained.sum(axis=1).round(6)))[0]
        held[part[unit]] += counts[unit]
    return part
