"""Dealing units: known answers, and shares on pools whose truth is known."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from stages.prepare import deal
from stages.prepare.deal import choose_folds, count_strata, deal_units, renumbered
from stages.prepare.split import oversized, split_pool
from stages.text.example import Example
from tests.unit.prepare.tables import PREPARE


def test_units_are_numbered_in_the_order_of_their_first_rows():
    assert renumbered(np.array([7, 3, 7, 9, 3])).tolist() == [0, 1, 0, 2, 1]


def test_labels_and_size_weigh_as_much_as_all_categories():
    pool = [Example("a", True, category="x"), Example("b", True, category="y"), Example("c", False, category="x")]
    counts = count_strata(pool, np.array([0, 0, 1]), 2)
    # False x, True x, True y; and three times, as there are three of these: False, True, rows.
    assert counts.tolist() == [[0, 1, 1, 0, 6, 6], [1, 0, 0, 3, 0, 3]]


def test_the_folds_nearest_to_the_target_are_chosen():
    counts = np.array([[9, 1], [1, 9], [5, 5], [2, 8], [8, 2], [5, 4]])
    assert choose_folds(counts, np.array([10, 10]), 2, seed=0) == (0, 1)  # (3, 4) is as near: ties go to the first
    assert choose_folds(counts, np.array([7, 13]), 2, seed=0) == (2, 3)
    assert choose_folds(counts, np.array([5, 4]), 1, seed=0) == (5,)


def test_the_choice_is_the_best_of_all_combinations():
    counts = np.random.default_rng(0).integers(0, 50, (12, 5)).astype(float)
    target = counts.sum(axis=0) / 4
    best = min(itertools.combinations(range(12), 3), key=lambda c: np.abs(counts[list(c)].sum(axis=0) - target).sum())
    assert choose_folds(counts, target, 3, seed=0) == best


def test_where_there_are_too_many_combinations_random_ones_are_tried(monkeypatch):
    monkeypatch.setattr(deal, "MOST_TRIED", 500)
    counts = np.random.default_rng(1).integers(0, 50, (20, 3)).astype(float)
    target = counts.sum(axis=0) / 2
    chosen = choose_folds(counts, target, 10, seed=3)
    assert chosen == choose_folds(counts, target, 10, seed=3)
    assert len(set(chosen)) == 10
    assert np.abs(counts[list(chosen)].sum(axis=0) - target).sum() < 0.05 * counts.sum()


def test_new_units_go_where_rows_are_missing_and_known_ones_stay():
    counts = np.array([[4, 4], [4, 4], [2, 2], [2, 2], [2, 2], [2, 2]])
    part = deal_units(counts, np.arange(6), np.array([0, 0, -1, -1, -1, -1]), np.array([0.5, 0.25, 0.25]))
    assert part[:2].tolist() == [0, 0]
    assert sorted(part[2:].tolist()) == [1, 1, 2, 2]


def test_a_unit_larger_than_a_fold_is_oversized_and_with_few_units_twice_the_mean():
    units = np.repeat(np.arange(100), [6] + [1] * 94 + [0] * 5)
    assert oversized(units, 20, 0.2) == [0]
    assert oversized(np.repeat(np.arange(96), [5] + [1] * 95), 20, 0.2) == []  # a fold: 5 of 100 rows
    assert oversized(np.arange(10), 20, 0.2) == []
    assert oversized(np.repeat(np.arange(10), [30] + [1] * 9), 20, 0.2) == [0]


@pytest.mark.parametrize("seed", [42, 1, 2])
def test_fraud_is_as_frequent_in_valid_and_test_as_in_train_though_units_are_unequal(seed):
    """Cases of very different sizes, most of a single class: folds taken in order differ by .1 here."""
    rng = np.random.default_rng(5)
    pool = []
    for case in range(400):
        fraud = rng.random() < 0.7
        pool += [
            Example(f"{case} {row} {rng.integers(10**9)}", bool(fraud), f"case {case}", f"kind {case % 6}")
            for row in range(1 + int(rng.pareto(1.2) * 3) % 80)
        ]
    splits = split_pool(pool, replace(PREPARE, seed=seed))
    share = {name: sum(e.label for e in rows) / len(rows) for name, rows in splits.items()}
    assert share["valid"] == pytest.approx(share["train"], abs=0.02)
    assert share["test"] == pytest.approx(share["train"], abs=0.02)
    for name, part in (("valid", 0.15), ("test", 0.2)):
        assert len(splits[name]) / len(pool) == pytest.approx(part, abs=0.02)
    fifths = [[e for rows in splits.values() for e in rows if e.fold == fold] for fold in range(5)]
    for rows in fifths:
        assert len(rows) / len(pool) == pytest.approx(0.2, abs=0.01)
        assert sum(e.label for e in rows) / len(rows) == pytest.approx(share["train"], abs=0.02)
