"""Splits: made from a pool by unit and class, or the user's own; and the rows that are dropped from them."""

import warnings
from collections import Counter

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from stages.data.lines import DataError
from stages.params import Params, Prepare
from stages.prepare.leaks import find_similar_rows, have_both_labels, unit_numbers
from stages.text.example import Example

# A split is a whole number of folds: steps of 0.05, coarser if there are fewer units or rows of a class.
FOLDS = 20
Splits = dict[str, list[Example]]


def split_pool(pool: list[Example], params: Prepare) -> Splits:
    """Splits a pool into train, valid and test, with no unit in two of them.

    The share of fraud in each category is about the same in all three. A unit is what must stay together: rows of one
    group, similar texts (equal, near duplicates, contained), and whatever these join. A unit with more rows than valid
    or test may have stays in train, because texts that many groups share, such as a disclaimer, can join half a pool.
    The fractions then apply to the rest.
    Raises DataError if the pool has too few units or rows of a class.
    """
    units = np.array(unit_numbers(pool, find_similar_rows(pool, params)))
    labels = np.array([example.label for example in pool])
    free = ~np.isin(units, oversized(units, max(params.valid_fraction, params.test_fraction)))
    rarer = min(Counter(labels[free].tolist()).get(label, 0) for label in (False, True))
    count = len(set(units[free].tolist()))
    folds = min(FOLDS, count, rarer)
    test_folds, valid_folds = (max(1, round(share * folds)) for share in (params.test_fraction, params.valid_fraction))
    if folds < 3 or test_folds + valid_folds >= folds:
        raise DataError(
            f"the pool has {count} units (groups, joined where texts are similar) and {rarer} rows of its rarer class "
            "that could be held out, too few to split: give more rows, finer groups, or your own splits"
        )
    strata = np.array([f"{example.label} {example.category}" for example in pool])
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=params.seed)
    fold_of = np.full(len(pool), folds - 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # a stratum may have few rows
        try:
            for number, (_, rows) in enumerate(splitter.split(strata[free], strata[free], units[free])):
                fold_of[np.flatnonzero(free)[rows]] = number
        except ValueError as error:
            raise DataError(f"the pool can't be split: {error}") from None
    names = ["test"] * test_folds + ["valid"] * valid_folds + ["train"] * (folds - test_folds - valid_folds)
    splits: Splits = {"train": [], "valid": [], "test": []}
    for fold, example in zip(fold_of, pool, strict=True):
        splits[names[fold]].append(example)
    return splits


def oversized(units: np.ndarray, share: float) -> list[int]:
    """The units with more than `share` of all rows, the largest first. At least three units remain."""
    counts = Counter(units.tolist())
    large = [unit for unit, rows in counts.most_common() if rows > share * len(units)]
    return large[: max(0, len(counts) - 3)]


def drop_conflicting(splits: Splits, params: Prepare) -> tuple[Splits, int]:
    """Drops all rows whose text appears with both labels. Returns the splits, and how many rows were dropped."""
    examples = [example for rows in splits.values() for example in rows]
    bad = iter(have_both_labels(examples, find_similar_rows(examples, params)))
    kept = {name: [example for example in rows if not next(bad)] for name, rows in splits.items()}
    return kept, len(examples) - sum(map(len, kept.values()))


def drop_train_duplicates(splits: Splits, params: Prepare) -> tuple[Splits, int]:
    """Drops rows of train whose text appears in valid or test. Returns the splits, and how many rows were dropped."""
    examples = [example for name in ("train", "valid", "test") for example in splits[name]]
    text = find_similar_rows(examples, params).text
    rows = len(splits["train"])
    keep = ~np.isin(text[:rows], text[rows:])
    train = [example for example, kept in zip(splits["train"], keep, strict=True) if kept]
    return {**splits, "train": train}, rows - len(train)


def drop_rows(splits: Splits, chosen: Params) -> tuple[Splits, dict[str, int]]:
    """Drops duplicates, conflicting rows and rows of the commoner class, as the params ask.

    Returns the splits, and how many rows were dropped for each reason. Raises DataError if a split lacks a class.
    """
    prepare = chosen.prepare
    dropped = {"duplicates_of_held_out": 0, "conflicting": 0}
    if chosen.dataset.drop_train_duplicates:
        splits, dropped["duplicates_of_held_out"] = drop_train_duplicates(splits, prepare)
    if {"keep": False, "drop": True}[prepare.conflicting_labels]:
        splits, dropped["conflicting"] = drop_conflicting(splits, prepare)
    if prepare.balance:
        rows_before = sum(map(len, splits.values()))
        splits = {n: balance(rows, prepare.seed) if n in prepare.balance else rows for n, rows in splits.items()}
        dropped["balance"] = rows_before - sum(map(len, splits.values()))
    require_both_classes(splits)
    return splits, dropped


def limit_train(sets: Splits, params: Prepare) -> tuple[Splits, dict[str, int]]:
    """Limits the rows of a unit in train, if the params ask. Returns the sets, and how many rows were dropped."""
    if params.max_rows_per_unit is None:
        return sets, {}
    train = limit_units(sets["train"], params.max_rows_per_unit, params.seed)
    require_both_classes({"train": train})
    return {**sets, "train": train}, {"max_rows_per_unit": len(sets["train"]) - len(train)}


def balance(examples: list[Example], seed: int) -> list[Example]:
    """Draws as many rows of each class as the rarer class has, and keeps their order."""
    labels = np.array([example.label for example in examples])
    rarer = min(labels.sum(), (~labels).sum())
    rng = np.random.default_rng(seed)
    kept = [rng.choice(np.flatnonzero(labels == label), rarer, replace=False) for label in (False, True)]
    return [examples[row] for row in np.sort(np.concatenate(kept))]


def limit_units(examples: list[Example], most: int, seed: int) -> list[Example]:
    """Draws at most `most` rows of each unit, and keeps their order."""
    rng = np.random.default_rng(seed)
    units = np.array([example.unit for example in examples])
    kept = [rng.permutation(np.flatnonzero(units == unit))[:most] for unit in np.unique(units)]
    return [examples[row] for row in np.sort(np.concatenate(kept))]


def require_both_classes(splits: Splits) -> None:
    """Raises DataError if a split lacks a class, because no metric has a meaning there."""
    for name, examples in splits.items():
        counts = Counter(example.label for example in examples)
        if not (counts[True] and counts[False]):
            raise DataError(
                f"{name} has {counts[True]} fraud and {counts[False]} other rows; expected some of both: "
                "check the labels, or change prepare.seed or the fractions"
            )
