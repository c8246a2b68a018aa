"""A batch that does not fit into memory is computed in parts."""

import dataclasses

import pytest
import torch

from stages.errors import UserError


def test_a_batch_that_does_not_fit_is_computed_in_micro_batches(start, train, tmp_path, monkeypatch, capfd):
    """A model that has room for two rows at once gives the gradients of one that has room for all."""
    params = dataclasses.replace(train, lora_dropout=0.0, save_steps=100, num_train_epochs=1)
    whole = start(tmp_path / "whole", params)
    whole.train_to_end(None)

    small = start(tmp_path / "small", params)
    loss = small.compute_loss

    def limited(model, inputs, **options):
        if len(inputs["input_ids"]) > 1:
            loss(model, inputs, **options).backward()  # what was computed before memory ran out must not count
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(model, inputs, **options)

    calls = 0

    def second_batch(model, inputs, **options):
        """Memory runs out, twice, at the second batch of a step, when there are gradients of the first."""
        nonlocal calls
        calls += 1
        return (limited if calls > 1 else loss)(model, inputs, **options)

    monkeypatch.setattr(small, "compute_loss", second_batch)
    small.train_to_end(None)
    assert small.pieces == 4
    assert "in 4 pieces" in capfd.readouterr().err
    for (name, one), (_, other) in zip(whole.model.named_parameters(), small.model.named_parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one, other, atol=2e-4), name

    never = start(tmp_path / "never", params)
    monkeypatch.setattr(never, "compute_loss", lambda *a, **k: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(UserError, match=r"1 text\(s\) of \d+ tokens does not fit.*train.profile: memory"):
        never.train_to_end(None)


def test_auto_switches_to_memory_where_a_batch_does_not_fit(start, train, tmp_path, monkeypatch, capfd):
    params = dataclasses.replace(train, lora_dropout=0.0)
    plain = start(tmp_path / "plain", params)
    plain.train_to_end(None)
    auto = start(tmp_path / "auto", dataclasses.replace(params, profile="auto"))
    loss = auto.compute_loss

    def tight(model, inputs, **options):
        if not model.is_activation_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(model, inputs, **options)

    monkeypatch.setattr(auto, "compute_loss", tight)
    auto.train_to_end(None)
    assert "auto goes on as memory" in capfd.readouterr().err
    assert auto.pieces == 1
    for (name, one), (_, other) in zip(plain.model.named_parameters(), auto.model.named_parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one, other, atol=2e-4), name
