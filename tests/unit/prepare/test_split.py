"""Splits: no unit is in two of them, and each has its share."""

import random
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from stages.data.lines import DataError
from stages.prepare.split import balance, drop_conflicting, limit_units, require_both_classes, split_pool
from stages.text.example import Example
from tests.unit.prepare.related import alike, related_texts
from tests.unit.prepare.tables import PREPARE

pools = st.lists(
    st.builds(
        Example,
        input=st.sampled_from([f"text {n}" for n in range(300)]),
        label=st.booleans(),
        group=st.sampled_from(["", "", *(f"case {n}" for n in range(150))]),
    ),
    min_size=60,
    max_size=120,
)


@given(pools, st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_no_group_and_no_text_is_in_two_splits(pool, seed):
    params = replace(PREPARE, valid_fraction=0.2, test_fraction=0.2, seed=seed)
    try:
        splits = split_pool(pool, params)
    except DataError:  # random links can join a pool into too few units, which is said
        reject()
    assert Counter(replace(e, fold=-1) for rows in splits.values() for e in rows) == Counter(pool)
    for key in ("input", "group"):
        found = defaultdict(set)
        for name, rows in splits.items():
            for example in rows:
                found[getattr(example, key)].add(name)
        found.pop("" if key == "group" else None, None)
        assert all(len(names) == 1 for names in found.values())


def test_splits_have_the_asked_shares_and_the_pools_class_balance():
    rng = np.random.default_rng(0)
    pool = [Example(f"t{n}", bool(rng.random() < 0.3), f"g{n // 3}") for n in range(3000)]
    splits = split_pool(pool, PREPARE)
    shares = {name: len(rows) / len(pool) for name, rows in splits.items()}
    assert shares == pytest.approx({"train": 0.65, "valid": 0.15, "test": 0.2}, abs=0.02)
    for rows in splits.values():
        assert sum(e.label for e in rows) / len(rows) == pytest.approx(0.3, abs=0.03)
    assert splits == split_pool(pool, PREPARE)


def test_a_pool_too_small_to_split_says_so():
    with pytest.raises(DataError, match="the pool has 1 units"):
        split_pool([Example("a", True, "g"), Example("b", False, "g")], PREPARE)


def test_a_small_pool_without_groups_is_split():
    splits = split_pool([Example(f"t{n}", n % 2 == 0) for n in range(20)], PREPARE)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 12, "valid": 4, "test": 4}
    require_both_classes(splits)


def test_a_single_class_split_is_refused():
    with pytest.raises(DataError, match="test has 0 fraud and 1 other rows"):
        require_both_classes({"test": [Example("a", False)]})


@pytest.mark.slow
@given(st.integers(0, 10**9))
@settings(max_examples=1000, deadline=None)
def test_no_unit_is_in_two_splits(seed):
    """Random groups, duplicates, edits and substrings: alike texts and rows of a group are in one split."""
    rng = random.Random(seed)
    groups = ["", "", *(f"case {n}" for n in range(20))]
    pool = [Example(text, rng.random() < 0.5, rng.choice(groups)) for text in related_texts(rng, 40)]
    try:
        splits = split_pool(pool, replace(PREPARE, seed=seed % 100))
    except DataError:  # random links can join a pool into too few units, which is said
        reject()
    assert sorted(map(str, pool)) == sorted(str(replace(e, fold=-1)) for rows in splits.values() for e in rows)
    where = [(example, name) for name, rows in splits.items() for example in rows]
    for number, (one, here) in enumerate(where):
        for other, there in where[:number]:
            if here != there:
                assert not (one.group and one.group == other.group)
                assert not alike(one.input, other.input)


def test_texts_with_both_labels_can_be_dropped():
    sets = {"train": [Example("甲乙", True), Example("丙丁", False)], "valid": [Example("甲 乙", False)], "test": []}
    kept, dropped = drop_conflicting(sets, PREPARE)
    assert dropped == 2
    assert [e.input for e in kept["train"]] == ["丙丁"]


def test_balance_draws_from_the_commoner_class_alone():
    rows = [Example(f"t{n}", n % 4 == 0) for n in range(100)]
    kept = balance(rows, 3)
    assert [e.label for e in kept].count(True) == [e.label for e in kept].count(False) == 25
    assert kept == balance(rows, 3)
    assert kept == sorted(kept, key=rows.index)


def test_a_unit_gives_train_no_more_than_its_share():
    rows = [Example(f"t{n}", n % 2 == 0, unit=0 if n < 50 else n) for n in range(100)]
    kept = limit_units(rows, 7, 3)
    assert [e.unit for e in kept].count(0) == 7
    assert len(kept) == 57
    assert kept == sorted(kept, key=rows.index) == limit_units(rows, 7, 3)


def test_a_unit_that_is_too_large_to_hold_out_stays_in_train():
    pool = [Example(f"big {n}", n % 2 == 0, "big") for n in range(100)]
    pool += [Example(f"small {n}", n % 2 == 0, f"g{n}") for n in range(100)]
    splits = split_pool(pool, PREPARE)
    assert not [e for name in ("valid", "test") for e in splits[name] if e.group == "big"]
    assert len(splits["test"]) == 20
