"""A batch that does not fit into memory is computed in parts."""

import dataclasses

import pytest
import torch

from stages.errors import UserError
from stages.train.micro_batches import cut
from tests.unit.train.trainers import trainer_for


def test_a_batch_that_does_not_fit_is_computed_in_micro_batches(start, train, tmp_path, monkeypatch, capfd):
    """A model that has room for two rows at once gives the gradients of one that has room for all."""
    params = dataclasses.replace(train, lora_dropout=0.0, save_steps=100, num_train_epochs=1)
    whole = start(tmp_path / "whole", params)
    whole.train_to_end(None)

    small = start(tmp_path / "small", params)
    loss = small.passes.loss

    def limited(batch, tokens):
        if len(batch["input_ids"]) > 1:
            loss(batch, tokens).backward()  # what was computed before memory ran out must not count
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(batch, tokens)

    calls = 0

    def second_batch(batch, tokens):
        """Memory runs out, twice, at the second batch of a step, when there are gradients of the first."""
        nonlocal calls
        calls += 1
        return (limited if calls > 1 else loss)(batch, tokens)

    monkeypatch.setattr(small.passes, "loss", second_batch)
    small.train_to_end(None)
    assert small.micro_batches.least == 4
    assert "into 4 micro-batches" in capfd.readouterr().err
    for (name, one), (_, other) in zip(whole.model.named_parameters(), small.model.named_parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one, other, atol=2e-4), name

    never = start(tmp_path / "never", params)
    out_of_memory = lambda batch, tokens: (_ for _ in ()).throw(torch.OutOfMemoryError("full"))  # noqa: E731
    monkeypatch.setattr(never.passes, "loss", out_of_memory)
    with pytest.raises(UserError, match=r"1 text\(s\) of \d+ tokens does not fit.*train.profile: memory"):
        never.train_to_end(None)


def test_auto_switches_to_memory_where_a_batch_does_not_fit(start, train, tmp_path, monkeypatch, capfd):
    params = dataclasses.replace(train, lora_dropout=0.0)
    plain = start(tmp_path / "plain", params)
    plain.train_to_end(None)
    auto = start(tmp_path / "auto", dataclasses.replace(params, profile="auto"))
    loss = auto.passes.loss

    def tight(batch, tokens):
        if not auto.model.is_activation_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(batch, tokens)

    monkeypatch.setattr(auto.passes, "loss", tight)
    auto.train_to_end(None)
    assert "auto changes to memory" in capfd.readouterr().err
    assert auto.micro_batches.least == 1
    for (name, one), (_, other) in zip(plain.model.named_parameters(), auto.model.named_parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one, other, atol=2e-4), name


@pytest.mark.parametrize(("profile", "max_tokens"), [("plain", 0), ("memory", 150)])
def test_the_largest_micro_batch_is_found(base_folder, prompt, examples, train_params, tmp_path, profile, max_tokens):
    train = dataclasses.replace(train_params, profile=profile, per_device_train_batch_size=6)
    trainer = trainer_for(base_folder, prompt, examples, train, tmp_path)
    micro = trainer.micro_batches
    passes = micro.passes
    passes.profile = dataclasses.replace(passes.profile, max_tokens=max_tokens or None)
    sizes = lambda batch: [passes.packed_tokens(part) for part in cut(batch, micro.number_for(batch))]  # noqa: E731
    batches = list(trainer.get_train_dataloader())
    largest = max(sizes(micro.largest_batch()))
    assert largest >= max(size for batch in batches for size in sizes(batch))
    if max_tokens:
        assert any(len(sizes(batch)) > 1 for batch in batches)
        assert largest < max_tokens + 150


def test_the_largest_micro_batch_is_this_process_s_own(base_folder, prompt, examples, train_params, tmp_path):
    train = dataclasses.replace(train_params, per_device_train_batch_size=6)
    trainer = trainer_for(base_folder, prompt, examples, train, tmp_path)
    largest = lambda: len(trainer.micro_batches.largest_batch()["positions"])  # noqa: E731
    whole = largest()
    trainer.batches.world = 4
    for trainer.batches.rank in range(4):
        assert largest() <= -(-whole // 4)
