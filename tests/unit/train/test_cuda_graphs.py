"""CUDA graphs and compiled layers take the steps that plain passes take. For a GPU."""

import dataclasses
import gc

import pytest
import torch

from stages.params import Method
from tests.unit.train.trainers import trainer_for

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


@pytest.mark.parametrize(
    ("profile", "residency", "dtype", "tolerance"),
    [
        ("speed", "dequantized", "bfloat16", 3e-2),
        ("speed", "quantized", "bfloat16", 3e-2),
        ("memory", "quantized", "bfloat16", 3e-2),
        ("memory", "quantized", "float32", 1e-3),
    ],
)
def test_profiles_take_the_same_steps(
    base_folder,
    prompt,
    examples,
    train_params,
    tmp_path,
    profile,
    residency,
    dtype,
    tolerance,
):
    train = dataclasses.replace(train_params, num_train_epochs=6, learning_rate=5e-3, logging_steps=100)
    method = Method(dtype=dtype, load_in_4bit=True, residency=residency)
    losses = {"plain": [], profile: []}
    for name in ("plain", profile):
        params = dataclasses.replace(train, profile=name)
        trainer = trainer_for(base_folder, prompt, examples, params, tmp_path / name, method, torch.device("cuda", 0))
        trainer.nan_guard.note_loss = lambda loss, step, rows, found=losses[name]: found.append(loss.item())
        trainer.train_to_end(None)
        captured = trainer.passes.captured
        assert (captured is not None and len(captured.graphs) > 0) == (name != "plain")
    assert len(losses["plain"]) >= 48
    assert min(losses["plain"]) < max(losses["plain"]) - 0.5  # something was learned
    assert losses[profile] == pytest.approx(losses["plain"], rel=tolerance)


def test_auto_changes_to_memory_where_a_graph_does_not_fit(
    base_folder, prompt, examples, train_params, tmp_path, capfd
):
    """Memory runs out while the first graph is captured. Later, Python collects garbage while a pool is in use."""
    train = dataclasses.replace(train_params, num_train_epochs=2, logging_steps=100, lora_dropout=0.0)
    method = Method(dtype="bfloat16", load_in_4bit=True, residency="dequantized")
    losses = {"memory": [], "auto": []}
    for name, found in losses.items():
        params = dataclasses.replace(train, profile=name)
        trainer = trainer_for(base_folder, prompt, examples, params, tmp_path / name, method, torch.device("cuda", 0))
        trainer.nan_guard.note_loss = lambda loss, step, rows, found=found: found.append(loss.item())
        if name == "auto":
            passes = trainer.passes
            packed_loss, failed = passes.packed_loss, []

            def full_once(inputs, packed_loss=packed_loss, failed=failed):
                loss = packed_loss(inputs)
                if not failed and torch.cuda.is_current_stream_capturing():
                    failed.append(True)
                    raise torch.OutOfMemoryError("CUDA out of memory")
                gc.collect()
                return loss

            passes.packed_loss = passes.captured.loss_of = full_once
        trainer.train_to_end(None)
    assert "auto changes to memory" in capfd.readouterr().err
    assert len(trainer.passes.captured.graphs) > 0
    assert losses["auto"] == pytest.approx(losses["memory"], rel=3e-2)
