"""Splits: made from a pool by unit and class, or the user's own; and the rows that are dropped from them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from stages.data.lines import DataError
from stages.out_of_fold import FIFTHS
from stages.params import Params, Prepare
from stages.prepare.deal import choose_folds, count_strata, deal_units, renumbered, stratified_folds
from stages.prepare.leaks import find_similar_rows, have_both_labels, unit_numbers
from stages.prepare.manifest import SPLITS, Recorded, compare_with, digest, key_of, read_manifest, recorded_parts
from stages.prepare.time_split import names_by_time
from stages.text.example import Example

# A split is a whole number of these folds: steps of 0.05, coarser if there are fewer units or rows of a class.
FOLDS = 20
Splits = dict[str, list[Example]]


def split_sources(
    texts: Splits, chosen: Params, times: Mapping[str, datetime] = MappingProxyType({})
) -> tuple[Splits, dict[str, Any]]:
    """The splits of a data set: its own, or made from its pool. Returns them, and what a manifest knows of the rows.

    times: of each row, by its source, if the pool is split by time.
    Raises DataError if prepare.fold or prepare.manifest is set for splits of a user's own, or by time.
    """
    params = chosen.prepare
    if times:
        return split_by_time(texts["pool"], params, times)
    if "pool" in texts:
        manifest = read_manifest(Path(params.manifest)) if params.manifest else []
        splits = split_pool(texts["pool"], params, manifest)
        return splits, {"manifest": compare_with(manifest, splits)} if manifest else {}
    for key in ("fold", "manifest"):
        if getattr(params, key) is not None:
            raise DataError(
                f"prepare.{key} is {getattr(params, key)}, but datasets.{chosen.dataset_name} has splits of its own, "
                "which are kept as given; expected null"
            )
    return texts, {}


def split_by_time(pool: list[Example], params: Prepare, times: Mapping[str, datetime]) -> tuple[Splits, dict[str, Any]]:
    """Splits a pool by the times of its rows, with no unit in two splits. Returns the boundaries, too."""
    for key in ("fold", "manifest"):
        if getattr(params, key) is not None:
            raise DataError(
                f"prepare.{key} is {getattr(params, key)}, but columns.time splits by time; expected null, or no "
                "columns.time in the entry of datasets"
            )
    units = renumbered(np.array(unit_numbers(pool, find_similar_rows(pool, params))))
    large = oversized(units, FOLDS, max(params.valid_fraction, params.test_fraction))
    folds = fifths(pool, units, np.full(int(units.max()) + 1, -1), large, params.seed)
    pool = [replace(example, fold=int(fold)) for example, fold in zip(pool, folds, strict=True)]
    names, boundaries = names_by_time(pool, units, times, params)
    return gather(pool, names), {"time": boundaries}


def split_pool(pool: list[Example], params: Prepare, manifest: Sequence[Recorded] = ()) -> Splits:
    """Splits a pool into train, valid and test, with no unit in two of them, and gives each row its fold.

    The share of fraud in each category is about the same in all three. A unit is what must stay together: rows of one
    group, similar texts (equal, near duplicates, contained), and whatever these join. A unit with more rows than a
    twentieth of the pool stays in train, because texts that many groups share, such as a disclaimer, can join half a
    pool. The fractions then apply to the rest.

    Units that a manifest knows keep their split and their fold. If params.fold is set, that fold is test.
    Raises DataError if the pool has too few units or rows of a class.
    """
    units = renumbered(np.array(unit_numbers(pool, find_similar_rows(pool, params))))
    keys = [key_of(example) for example in pool]
    split_of, fold_of = recorded_parts(manifest, keys, units)
    large = oversized(units, FOLDS, max(params.valid_fraction, params.test_fraction))
    folds = fifths(pool, units, fold_of, large, params.seed)
    pool = [replace(example, fold=int(fold)) for example, fold in zip(pool, folds, strict=True)]
    if params.fold is not None:
        return split_by_fold(pool, units, params.fold, params)
    if (split_of >= 0).any():
        shares = [1 - params.valid_fraction - params.test_fraction, params.valid_fraction, params.test_fraction]
        parts = deal_new(pool, units, split_of, shares, dict.fromkeys(large, 0), params.seed)
        return gather(pool, np.array(SPLITS)[parts])
    shares_of = {"test": params.test_fraction, "valid": params.valid_fraction}
    return gather(pool, hold_out(pool, units, shares_of, FOLDS, params.seed))


def split_by_fold(pool: list[Example], units: np.ndarray, fold: int, params: Prepare) -> Splits:
    """Splits a pool whose rows have folds: one of them is test, and valid is dealt from the others.

    Args:
        pool: n_rows rows with their folds.
        units: int of shape (n_rows,), the unit of each row.
        fold: number of the fold that is test.
        params: the section `prepare` of params.yaml.
    """
    test = np.array([example.fold for example in pool]) == fold
    if not test.any():
        raise DataError(
            f"prepare.fold is {fold}, and no row is in that fold: a pool of fewer than {FIFTHS} units, or rows of its "
            "rarer class, has none; expected null"
        )
    rest = [example for example, held in zip(pool, test, strict=True) if not held]
    names = np.full(len(pool), "test", dtype="<U5")
    rest_share = 1 - 1 / FIFTHS
    shares = {"valid": params.valid_fraction / rest_share}
    names[~test] = hold_out(rest, units[~test], shares, round(FOLDS * rest_share), params.seed)
    return gather(pool, names)


def gather(pool: list[Example], names: np.ndarray) -> Splits:
    """The rows by the name of their split, text of shape (n_rows,)."""
    splits: Splits = {name: [] for name in SPLITS}
    for name, example in zip(names.tolist(), pool, strict=True):
        splits[name].append(example)
    return splits


def hold_out(pool: list[Example], units: np.ndarray, shares: Mapping[str, float], most: int, seed: int) -> np.ndarray:
    """The name of the split of each row, text of shape (n_rows,): one of `shares`, or train.

    The units are dealt to folds. Then each held-out split takes the folds that together are nearest to its share of
    the rows, of fraud and of every category, as `choose_folds` finds them.

    Args:
        pool: n_rows rows.
        units: int of shape (n_rows,), the unit of each row.
        shares: the share of the rows of each held-out split.
        most: number of folds; fewer if there are fewer units or rows of a class.
        seed: of the order in which equal units are dealt.
    """
    units = renumbered(units)
    labels = np.array([example.label for example in pool])
    free = ~np.isin(units, oversized(units, most, max(shares.values())))
    rarer = min(Counter(labels[free].tolist()).get(label, 0) for label in (False, True))
    count = len(set(units[free].tolist()))
    folds = min(most, count, rarer)
    numbers = {name: max(1, round(share * folds)) for name, share in shares.items()}
    if folds < 1 + len(shares) or sum(numbers.values()) >= folds:
        raise DataError(
            f"the pool has {count} units (groups, joined where texts are similar) and {rarer} rows of its rarer class "
            "that could be held out, too few to split: give more rows, finer groups, or your own splits"
        )
    candidates = [example for example, kept in zip(pool, free, strict=True) if kept]
    fold_of = stratified_folds(candidates, units[free], folds, seed)
    counts = count_strata(candidates, fold_of, folds)
    split_of, left = np.full(folds, "train"), np.arange(folds)
    for name, number in numbers.items():
        chosen = left[list(choose_folds(counts[left], counts.sum(axis=0) * number / folds, number, seed))]
        split_of[chosen] = name
        left = np.setdiff1d(left, chosen)
    names = np.full(len(pool), "train")
    names[free] = split_of[fold_of]
    return names


def oversized(units: np.ndarray, folds: int, share: float) -> list[int]:
    """The units with more rows than a fold, the largest first. At least three units remain.

    With few units, a usual one has more: so twice the mean of a unit is allowed, up to `share` of all rows.
    """
    counts = Counter(units.tolist())
    bound = max(1 / folds, min(2 / len(counts), share))
    large = [unit for unit, rows in counts.most_common() if rows > bound * len(units)]
    return large[: max(0, len(counts) - 3)]


def fifths(pool: list[Example], units: np.ndarray, known: np.ndarray, large: Sequence[int], seed: int) -> np.ndarray:
    """The fold of each row, from 0, int of shape (n_rows,); -1 in a pool that is too small for folds.

    Args:
        pool: n_rows rows.
        units: int of shape (n_rows,), the unit of each row, from 0.
        known: the fold of each unit in a manifest, int of shape (n_units,), and -1 for new ones.
        large: the oversized units, which come on top of the rows that a fold should have.
        seed: of the order in which units of one size are dealt.
    """
    rarer = min(Counter(example.label for example in pool).get(label, 0) for label in (False, True))
    if min(rarer, len(known)) < FIFTHS:
        return np.full(len(pool), -1)
    apart = {unit: number % FIFTHS for number, unit in enumerate(large)}
    return deal_new(pool, units, known, [1 / FIFTHS] * FIFTHS, apart, seed)


def deal_new(
    pool: list[Example],
    units: np.ndarray,
    known: np.ndarray,
    shares: Sequence[float],
    large: Mapping[int, int],
    seed: int,
) -> np.ndarray:
    """The part of each row, int of shape (n_rows,): as known, and dealt for balance for new units.

    Large units are dealt first. The order depends on texts and seed alone, so that shuffled rows are dealt alike.

    Args:
        pool: n_rows rows.
        units: int of shape (n_rows,), the unit of each row, from 0.
        known: the part of each unit, int of shape (n_units,), and -1 for new ones.
        shares: the share of the rows that each part should have.
        large: oversized units and the parts they go to if they are new. They count as no rows there.
        seed: of the order of units of one size.
    """
    size = np.bincount(units)
    first = [""] * len(size)
    for unit, example in zip(units.tolist(), pool, strict=True):
        first[unit] = min(filter(None, (first[unit], "".join(key_of(example)))))
    counts, part = count_strata(pool, units, len(size)), known.copy()
    for unit, where in large.items():
        counts[unit] = 0
        part[unit] = where if part[unit] < 0 else part[unit]
    order = np.lexsort((np.array([digest(f"{seed} {key}") for key in first]), -size))
    return deal_units(counts, order, part, np.array(shares))[units]


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
