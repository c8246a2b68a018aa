"""Measures where a training step's memory goes on a GPU, by method, batch and checkpointing, beside the formula.

python -m benchmarks.step_memory SHAPE   (needs models/base of that shape: benchmarks.random_model)

Writes results/memory_map.json.
"""

import dataclasses
import gc
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from benchmarks.common import RESULTS, command_parser, require_gpu_and_base
from stages import params
from stages.artifacts import read_json, write_json
from stages.command import run
from stages.distributed import rank, world_size
from stages.model.device import environment, pick_device
from stages.model.forward import completion_logits, output_head
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.params import Method, Params, Train
from stages.plan.memory import step_memory
from stages.plan.shapes import SHAPES, config_of

METHODS = ("lora", "lora-int8", "qlora", "qlora-dq")
BATCHES = (1, 4, 16, 32)
RANK = 16  # of the adapters
TOKENS, SHARED = 256, 22  # of a text with its prompt, and of the shared prompt prefix
STEPS = 3  # of which the last is measured: by then the optimizer's states exist
LABEL = 7  # the token that every text is trained on


def measure_method(method: str) -> dict[str, dict[str, Any]]:
    """A block for each batch and form of checkpointing, named like qlora-16-checkpointed."""
    chosen = params.load()
    train = adapter_params(chosen)
    gc.collect()  # an earlier method's model, which holds cycles
    torch.cuda.empty_cache()
    empty = torch.cuda.memory_allocated()
    base = load_base(chosen.methods[method])
    torch.cuda.empty_cache()
    weights = torch.cuda.memory_allocated() - empty
    model = attach_adapter(base, train)
    adapters = torch.cuda.memory_allocated() - empty - weights
    blocks: dict[str, dict[str, Any]] = {}
    for checkpointing in (False, True):
        if checkpointing:
            checkpoint_activations(base)
        for batch in BATCHES:
            block: dict[str, Any] = {"method": method, "checkpointing": checkpointing, "batch": batch}
            block["weights"] = weights
            try:
                block |= {"adapters": adapters} | measure_step(model, batch)
            except torch.OutOfMemoryError as error:
                block["unavailable"] = str(error).splitlines()[0]
            model.zero_grad()
            torch.cuda.empty_cache()
            blocks[f"{method}-{batch}" + ("-checkpointed" if checkpointing else "")] = block
    return blocks


def adapter_params(chosen: Params) -> Train:
    return dataclasses.replace(chosen.train, r=RANK, lora_alpha=32, lora_dropout=0.0)


def checkpoint_activations(model: PreTrainedModel) -> None:
    model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})


def measure_step(model: nn.Module, batch: int, tokens: int = TOKENS) -> dict[str, float]:
    """Bytes of a training step's parts, its seconds and its loss, on `batch` random texts of `tokens` tokens each.

    With several processes, each takes its share of the batch. The learning rate is 0, so that losses can be compared.
    """
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)
    rows = random_rows(batch, tokens)
    at_head: list[int] = []
    hook = output_head(model).register_forward_pre_hook(lambda *_: at_head.append(torch.cuda.memory_allocated()))
    try:
        for _ in range(STEPS):
            step = timed_step(model, rows, trained, optimizer)
    finally:
        hook.remove()
    before, after = step.pop("before"), step.pop("after")
    states = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v))
    return step | {
        "optimizer": states,
        "activations": at_head[-1] - before,
        "logits": after - at_head[-1],
        "before": before,
        "peak": max(step["forward_peak"], step["backward_peak"]),
    }


def random_rows(batch: int, tokens: int) -> dict[str, torch.Tensor]:
    """This process's share of `batch` random texts, whose first SHARED tokens are the same."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 100_000, (batch, tokens), generator=generator)  # (batch, tokens)
    ids[:, :SHARED] = ids[:1, :SHARED].clone()
    ids = ids[rank() :: world_size()]
    return {"input_ids": ids, "positions": torch.full((len(ids), 1), tokens - 1)}


def timed_step(
    model: nn.Module, rows: dict[str, torch.Tensor], trained: list[nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """One optimizer step: its loss, its seconds, and the bytes allocated at and between its ends.

    Args:
        model: the base model with its adapter, in train mode.
        rows: as `random_rows` makes them.
        trained: the adapter's parameters.
        optimizer: over the same parameters.
    """
    labels = torch.full((len(rows["input_ids"]),), LABEL, device=pick_device())
    torch.cuda.synchronize()
    start = time.perf_counter()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = functional.cross_entropy(completion_logits(model, rows, SHARED)[:, 0].float(), labels)
    after, forward_peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loss.backward()
    backward_peak = torch.cuda.max_memory_allocated()
    gradients = sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
    optimizer.step()
    optimizer.zero_grad()
    value = loss.item()
    del loss
    torch.cuda.synchronize()
    return {
        "loss": value,
        "seconds": time.perf_counter() - start,
        "gradients": gradients,
        "before": before,
        "after": after,
        "forward_peak": forward_peak,
        "backward_peak": backward_peak,
    }


def add_predictions(blocks: dict[str, dict[str, Any]], config: PretrainedConfig, methods: dict[str, Method]) -> None:
    """Adds to each block the peak that the formula predicts, and its error as a share of the measured peak."""
    for block in blocks.values():
        method = methods[block["method"]]
        predicted = step_memory(config, method, RANK, block["batch"], TOKENS, block["checkpointing"], SHARED)
        block["predicted_peak"] = predicted.peak
        if "peak" in block:
            block["prediction_error"] = predicted.peak / block["peak"] - 1


def main() -> None:
    parser = command_parser()
    parser.add_argument("shape", metavar="SHAPE", choices=SHAPES, help=f"one of {', '.join(SHAPES)}")
    shape = parser.parse_args().shape
    require_gpu_and_base()
    path = RESULTS / "memory_map.json"
    known = read_json(path) if path.exists() else {}
    blocks: dict[str, Any] = {}
    for method in METHODS:
        print(f"step_memory: {shape}, {method}", flush=True)
        blocks |= measure_method(method)
        add_predictions(blocks, config_of(shape), params.load().methods)
        write_json(path, known | {shape: blocks, "environment": environment(pick_device())})


if __name__ == "__main__":
    run(main)
