"""Splits: by group and class from a pool, or the user's own, checked."""

from collections import Counter

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from stages.params import Prepare
from stages.text.example import Example
from stages.text.jsonl import DataError

FOLDS = (
    20  # a split's share is a whole number of folds: steps of 0.05, coarser where groups or rows of a class are fewer
)
Splits = dict[str, list[Example]]


def split_pool(pool: list[Example], params: Prepare) -> Splits:
    """Splits a pool into train, valid and test with about the same share of fraud, no unit in two of them.

    A unit is what must stay together: rows of one group, rows of one text, and whatever these join.
    """
    units = unit_numbers(pool)
    labels = [example.label for example in pool]
    rarer = min(Counter(labels).values())
    folds = min(FOLDS, len(set(units)), rarer)
    test_folds, valid_folds = (max(1, round(share * folds)) for share in (params.test_fraction, params.valid_fraction))
    if folds < 3 or test_folds + valid_folds >= folds:
        raise DataError(
            f"the pool has {len(set(units))} groups and {rarer} rows of its rarer class, too few to split: give more "
            "rows, finer groups, or your own splits"
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=params.seed)
    fold_of = np.empty(len(pool), dtype=int)
    try:
        for number, (_, rows) in enumerate(splitter.split(labels, labels, units)):
            fold_of[rows] = number
    except ValueError as error:
        raise DataError(f"the pool can't be split: {error}") from None
    names = ["test"] * test_folds + ["valid"] * valid_folds + ["train"] * (folds - test_folds - valid_folds)
    splits: Splits = {"train": [], "valid": [], "test": []}
    for fold, example in zip(fold_of, pool, strict=True):
        splits[names[fold]].append(example)
    return splits


def unit_numbers(pool: list[Example]) -> list[int]:
    """A number a row, shape (n_rows,); equal for rows that a chain of equal groups and equal texts connects.

    Rows without a group are alone, but for equal texts.
    """
    columns: dict[tuple[str, str], int] = {}
    rows, nodes = [], []
    for row, example in enumerate(pool):
        for kind, value in (("group", example.group), ("text", example.input)):
            if value:
                rows.append(row)
                nodes.append(columns.setdefault((kind, value), len(columns)))
    size = len(pool) + len(columns)
    edges = coo_matrix((np.ones(len(rows)), (rows, np.array(nodes, dtype=int) + len(pool))), shape=(size, size))
    return connected_components(edges, directed=False)[1][: len(pool)].tolist()


def drop_train_duplicates(splits: Splits) -> tuple[Splits, int]:
    """Leaves out of train the rows whose text stands in valid or test. Returns the splits, and how many left."""
    held_out = {example.input for name in ("valid", "test") for example in splits[name]}
    train = [example for example in splits["train"] if example.input not in held_out]
    return {**splits, "train": train}, len(splits["train"]) - len(train)


def require_both_classes(splits: Splits) -> None:
    """Raises DataError if a split lacks a class: no metric means anything there."""
    for name, examples in splits.items():
        counts = Counter(example.label for example in examples)
        if not (counts[True] and counts[False]):
            raise DataError(
                f"{name} has {counts[True]} fraud and {counts[False]} other rows; expected some of both: "
                "check the labels, or change prepare.seed or the fractions"
            )
