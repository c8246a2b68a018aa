"""A part of train: whole units, smaller parts within larger ones, and all systems learn from it alone."""

import json
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.classifier.baseline import read_baseline
from stages.data.lines import DataError
from stages.prepare.__main__ import main as prepare_main
from stages.prepare.train_rows import LARGEST_SHARE, draw_train
from stages.text.example import Example, read_examples
from tests.unit.prepare.tables import PREPARE, encode

units = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 3)), min_size=2, max_size=20)


def rows_of(units):
    """Rows of units that are given as (rows of fraud, other rows, a number in their texts)."""
    return [
        Example(f"text {unit} {row} {seed}", row < fraud, f"case {unit}")
        for unit, (fraud, other, seed) in enumerate(units)
        for row in range(fraud + other)
    ]


def drawn(train, most, seed=42):
    splits, dropped = draw_train({"train": train, "test": []}, replace(PREPARE, train_rows=most, seed=seed))
    assert dropped == {"train_rows": len(train) - len(splits["train"])}
    return splits["train"]


@given(units, st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_parts_are_whole_units_in_order_and_lie_within_larger_ones(units, seed):
    train, before = rows_of(units), []
    for most in [*range(1, len(train), 5), len(train)]:
        try:
            part = drawn(train, most, seed)
        except DataError:
            continue
        cases = {row.group for row in part}
        assert part == [row for row in train if row.group in cases]
        assert len(part) <= most
        assert set(before) <= set(part)
        before = part
    assert before == train or len({row.label for row in train}) == 1


def test_the_share_of_fraud_is_that_of_train_and_rows_are_as_many_as_asked():
    rng = random.Random(0)
    train = rows_of([(1, 0, 0) if rng.random() < 0.23 else (0, 1, 0) for _ in range(3000)])
    share = sum(row.label for row in train) / len(train)
    for most in (20, 50, 200, 1000, 2999):
        part = drawn(train, most)
        assert len(part) == most
        assert abs(sum(row.label for row in part) - share * most) <= 1


def test_a_large_unit_waits_until_it_is_a_small_part():
    train = rows_of([(60, 60, 0), *[(2, 2, 1)] * 10, *[(1, 0, 2), (0, 1, 2)] * 300])
    for most in (40, 100, 300, 500):
        part = drawn(train, most)
        sizes = defaultdict(int)
        for row in part:
            sizes[row.group] += 1
        assert most * (1 - LARGEST_SHARE) <= len(part) <= most
        assert max(sizes.values()) <= LARGEST_SHARE * most


def test_shuffled_rows_are_drawn_alike_and_another_seed_draws_others():
    train = rows_of([(1, 2, 0), (2, 1, 1), (1, 1, 2)] * 20)
    shuffled = random.Random(1).sample(train, len(train))
    assert set(drawn(train, 40)) == set(drawn(shuffled, 40))
    assert set(drawn(train, 40)) != set(drawn(train, 40, seed=7))


@pytest.mark.parametrize(("most", "found"), [(1, "0 fraud and 1 other"), (4, "0 fraud and 0 other")])
def test_a_part_without_a_class_is_refused(most, found):
    train = rows_of([(1, 0, 0), (0, 1, 0)] * 3) if most == 1 else rows_of([(3, 3, 0)] * 4)
    with pytest.raises(DataError, match=f"prepare.train_rows is {most}, and .* {found} .*; expected some of both"):
        drawn(train, most)


def test_all_systems_learn_from_the_part_alone_and_the_other_sets_stay(project):
    rows = [{"input": f"第{n}句{chr(0x4E00 + 97 * n) * 9}", "label": n % 3 == 0, "group": n // 2} for n in range(160)]
    found = {}
    for most in (None, 30, 10_000):
        values = {"datasets/sample": {"pool": "data/raw/a.jsonl"}} | ({"prepare/train_rows": most} if most else {})
        project({"a.jsonl": encode(rows).decode()}, values)
        prepare_main()
        splits = {name: read_examples(Path(f"data/processed/{name}.jsonl")) for name in ("train", "valid", "test")}
        found[most] = {name: {(row.source, row.input, row.label, row.fold) for row in splits[name]} for name in splits}
        report = json.loads(Path("metrics/data.json").read_text(encoding="utf-8"))
        assert report["train"]["rows"] + report["dropped"].get("train_rows", 0) == len(found[None]["train"])
        learned = set("".join(row.input for row in splits["train"]))
        assert set("".join(read_baseline(Path("data/processed/baseline")).vocabulary)) <= learned
        assert Path("data/processed/baseline/folds.csv").is_file() == Path("data/processed/folds.csv").is_file()
        assert Path("data/processed/folds.csv").is_file() or most
        for file in ("folds.csv", "baseline/folds.csv"):
            Path(f"data/processed/{file}").unlink(missing_ok=True)
    assert found[30]["train"] < found[None]["train"] == found[10_000]["train"]
    assert len(found[30]["train"]) == 30
    for part in found.values():
        assert all(part[name] == found[None][name] for name in ("valid", "test"))
