"""Batches within a budget of tokens, the same in every process and epoch."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.text.batching import Collator, TokenBudgetBatches, padded

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=80)


@given(lengths, st.integers(8, 2000), st.integers(1, 20), st.booleans(), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_batches_hold_every_row_once_within_both_bounds(lengths, max_tokens, max_rows, group_by_length, epoch):
    batches = TokenBudgetBatches(lengths, max_tokens, max_rows, shuffle=True, group_by_length=group_by_length, seed=1)
    batches.set_epoch(epoch)
    made = list(batches)
    assert sorted(row for batch in made for row in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) <= max_rows
        assert len(batch) == 1 or len(batch) * padded(max(lengths[row] for row in batch)) <= max_tokens
    assert made == list(batches)


@given(lengths, st.integers(8, 2000), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_the_number_of_batches_is_the_same_in_every_epoch(lengths, max_tokens, max_rows):
    batches = TokenBudgetBatches(lengths, max_tokens, max_rows, shuffle=True, seed=3)
    counts = set()
    for epoch in range(4):
        batches.set_epoch(epoch)
        counts.add(len(batches))
    assert len(counts) == 1


def test_each_epoch_has_another_order_and_other_company():
    batches = TokenBudgetBatches([8] * 64, None, 4, shuffle=True, seed=3)
    first = list(batches)
    batches.set_epoch(1)
    assert {frozenset(batch) for batch in batches} != {frozenset(batch) for batch in first}


def test_another_seed_is_another_order():
    def order(seed):
        return list(TokenBudgetBatches([8] * 64, None, 4, shuffle=True, seed=seed))

    assert order(1) != order(2)
    assert order(1) == order(1)


def test_scoring_order_is_fixed_longest_first():
    assert list(TokenBudgetBatches([5, 30, 9, 30], 64)) == [[1, 3], [2, 0]]


def test_collator_pads_on_the_right_and_points_at_the_answer():
    rows = [{"input_ids": [5, 6, 7], "labels": [8, 9]}, {"input_ids": list(range(10, 19)), "labels": [1, 2]}]
    batch = Collator(pad_token_id=0)(rows)
    assert batch["input_ids"].shape == (2, 16)
    assert batch["input_ids"][0].tolist() == [5, 6, 7] + [0] * 13
    assert batch["positions"].tolist() == [[1, 2], [7, 8]]
    assert batch["labels"].tolist() == [[-100, 8, 9], [-100, 1, 2]]
