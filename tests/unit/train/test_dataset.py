"""Batches are distributed over processes: none is lost, none is doubled, and a process without rows takes part."""

import dataclasses

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.text.batching import IGNORED, TokenBudgetBatches, padded
from stages.train.dataset import TrainingBatches, TrainingCollator


def rows_of(lengths):
    return [{"input_ids": [7] * length, "labels": [3], "row": number} for number, length in enumerate(lengths)]


def test_the_processes_rows_are_the_batch_of_one_process(train_params):
    params = dataclasses.replace(train_params, max_tokens_per_batch=64, per_device_train_batch_size=9, seed=3)
    lengths = [5, 9, 30, 31, 31, 60]
    whole = TokenBudgetBatches(lengths, 64, 9, shuffle=True, seed=3)
    shares = [TrainingBatches(rows_of(lengths), params, rank, 3) for rank in range(3)]
    for epoch in (0, 1):
        for batches in (whole, *shares):
            batches.set_epoch(epoch)
        for batch, distributed in zip(whole, zip(*shares, strict=True), strict=True):
            assert sorted(row for share in distributed for row in share) == sorted(batch)
        assert [list(share) for share in shares] == [list(share.of_epoch(epoch)) for share in shares]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 500), min_size=2, max_size=40), st.integers(1, 8))
def test_no_process_has_many_more_tokens_than_another(train_params, lengths, world):
    params = dataclasses.replace(train_params, max_tokens_per_batch=None, per_device_train_batch_size=40)
    shares = [next(iter(TrainingBatches(rows_of(lengths), params, rank, world))) for rank in range(world)]
    tokens = [sum(padded(lengths[row]) for row in share) for share in shares]
    assert max(tokens) - min(tokens) <= padded(max(lengths))


def test_no_rows_become_a_placeholder_with_nothing_to_learn():
    collate = TrainingCollator.of(rows_of([9, 4, 6]), pad_token_id=0)
    batch = collate([])
    assert batch["labels"].eq(IGNORED).all()
    assert batch["positions"].tolist() == [[3]]
    assert collate(rows_of([9]))["labels"].tolist() == [[IGNORED, 3]]
