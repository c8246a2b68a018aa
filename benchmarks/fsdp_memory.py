"""Measures a training step whose decoder layers are sharded over processes, one per GPU, beside the formula.

NPROC=N python -m benchmarks.fsdp_memory SHAPE BATCH TOKENS   (needs models/base of that shape: benchmarks.random_model)

With N = 1 nothing is sharded. Writes results/sharded.json.
"""

import dataclasses
import gc
import time
from typing import Any

import torch
import torch.distributed

from benchmarks.common import RESULTS, command_parser, positive_int, require_gpu_and_base
from benchmarks.step_memory import RANK, SHARED, adapter_params, checkpoint_activations, measure_step
from stages import params
from stages.artifacts import read_json, write_json
from stages.command import run
from stages.distributed import is_main_process, world_size
from stages.errors import UserError
from stages.model.device import environment, pick_device
from stages.model.fsdp import shard_layers
from stages.model.layout import underlying
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.params import Method
from stages.plan.memory import step_memory
from stages.plan.shapes import SHAPES, config_of

METHODS = ("lora", "qlora-dq")


def measure_sharded_steps(method: Method, batch: int, tokens: int) -> dict[bool, dict[str, Any]]:
    """Loads and shards the model and measures a step on this process's share of the batch.

    Returns a block without checkpointing and one with it. Where a step does not fit on a single GPU, the block holds
    torch's message.
    """
    train = adapter_params(params.load())
    gc.collect()  # an earlier method's model, which holds cycles
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    empty = torch.cuda.memory_allocated()
    start = time.perf_counter()
    model = shard_layers(attach_adapter(load_base(method), train), method)
    loaded: dict[str, Any] = {
        "loading_seconds": time.perf_counter() - start,
        "loading_peak": torch.cuda.max_memory_allocated() - empty,
        "weights_and_adapters": torch.cuda.memory_allocated() - empty,
    }
    steps: dict[bool, dict[str, Any]] = {}
    for checkpointing in (False, True):
        if checkpointing:
            checkpoint_activations(underlying(model))
        try:
            steps[checkpointing] = loaded | measure_step(model, batch, tokens)
        except torch.OutOfMemoryError as error:
            if world_size() > 1:  # the others would wait for ever
                raise
            steps[checkpointing] = loaded | {"unavailable": str(error).splitlines()[0]}
        model.zero_grad()
        torch.cuda.empty_cache()
    return steps


def gathered(mine: Any) -> list[Any]:
    """What each process has, by rank."""
    if world_size() == 1:
        return [mine]
    everybodys = [None] * world_size()
    torch.distributed.all_gather_object(everybodys, mine)
    return everybodys


def compared_blocks(shape: str, name: str, batch: int, tokens: int) -> dict[str, dict[str, Any]]:
    """Measures a method in all processes and sets the formula's peak beside it, a block per form of checkpointing.

    Args:
        shape: the base model's name in SHAPES.
        name: a method's name in params.yaml.
        batch: texts in the step, over all processes.
        tokens: tokens of a text, prompt included.
    """
    method = dataclasses.replace(params.load().methods[name], residency="sharded")
    everybodys = gathered(measure_sharded_steps(method, batch, tokens))
    backend = {"backend": torch.distributed.get_backend()} if world_size() > 1 else {}
    blocks = {}
    for checkpointing in (False, True):
        ranks = {str(rank): steps[checkpointing] for rank, steps in enumerate(everybodys)}
        predicted = step_memory(
            config_of(shape), method, RANK, batch, tokens, checkpointing, SHARED, processes=world_size()
        )
        key = f"{name}, {world_size()} process(es)" + (", checkpointed" if checkpointing else "")
        blocks[key] = {"batch": batch, "tokens": tokens, "predicted_peak": predicted.peak, "ranks": ranks, **backend}
        peaks = ", ".join(f"{r['peak'] / 1e9:.2f} GB" if "peak" in r else r["unavailable"] for r in ranks.values())
        print(f"fsdp_memory: {shape}, {key}: {peaks}; {predicted.peak / 1e9:.2f} GB by formula", flush=True)
    return blocks


def main() -> None:
    parser = command_parser()
    parser.add_argument("shape", metavar="SHAPE", choices=SHAPES, help=f"one of {', '.join(SHAPES)}")
    parser.add_argument("batch", metavar="BATCH", type=positive_int, help="texts in a step, over all processes")
    parser.add_argument("tokens", metavar="TOKENS", type=positive_int, help="tokens of a text, prompt included")
    options = parser.parse_args()
    if options.batch < world_size():
        raise UserError(f"BATCH: found {options.batch}; expected a text for each of {world_size()} processes")
    device = pick_device()
    require_gpu_and_base()
    path = RESULTS / "sharded.json"
    written = read_json(path) if path.exists() else {}
    for name in METHODS:
        blocks = compared_blocks(options.shape, name, options.batch, options.tokens)
        written[options.shape] = written.get(options.shape, {}) | blocks
        if is_main_process():
            write_json(path, written | {"environment": environment(device)})


if __name__ == "__main__":
    run(main, distributed=True)
