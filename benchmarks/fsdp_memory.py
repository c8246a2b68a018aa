"""A training step of a model whose blocks are split over processes, one a GPU: the memory of each, beside the formula.

NPROC=N python -m benchmarks.fsdp_memory SHAPE BATCH TOKENS   (models/base is a model of that shape; N = 1: not split)
"""

import dataclasses
import gc
import time
from typing import Any

import torch
import torch.distributed

from benchmarks import RESULTS, arguments, require_gpu_and_base, whole_number
from benchmarks.step_memory import RANK, SHARED, adapter_params, checkpoint_activations, measure_step
from stages import params
from stages.artifacts import read_json, write_json
from stages.command import run
from stages.distributed import is_main_process, world_size
from stages.errors import UserError
from stages.model.device import environment, pick_device
from stages.model.fsdp import shard_layers
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.params import Method
from stages.plan.memory import step_memory
from stages.plan.shapes import config_of

METHODS = ("lora", "qlora-dq")


def measure(method: Method, batch: int, tokens: int) -> dict[bool, dict[str, Any]]:
    """Of this process, without checkpointing and with it: loads and splits the model, and takes three steps with its
    share of the batch; where that does not fit on one GPU alone, what torch says."""
    train = adapter_params(params.load())
    gc.collect()  # of an earlier method's model, which holds cycles
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    empty = torch.cuda.memory_allocated()
    start = time.perf_counter()
    model = shard_layers(attach_adapter(load_base(method), train), method)
    loaded = {
        "loading_seconds": time.perf_counter() - start,
        "loading_peak": torch.cuda.max_memory_allocated() - empty,
        "weights_and_adapters": torch.cuda.memory_allocated() - empty,
    }
    steps = {}
    for checkpointing in (False, True):
        if checkpointing:
            checkpoint_activations(model.get_base_model())
        try:
            steps[checkpointing] = loaded | measure_step(model, batch, tokens)
        except torch.OutOfMemoryError as error:
            if world_size() > 1:  # the others would wait for ever
                raise
            steps[checkpointing] = loaded | {"unavailable": str(error).splitlines()[0]}
        model.zero_grad()
        torch.cuda.empty_cache()
    return steps


def main() -> None:
    shape, *numbers = arguments("SHAPE BATCH TOKENS", most=3)
    config = config_of(shape)
    batch, tokens = (whole_number(text, name) for text, name in zip(numbers, ("BATCH", "TOKENS"), strict=True))
    if batch < world_size():
        raise UserError(f"BATCH: found {batch}; expected a text for each of {world_size()} processes")
    device = pick_device()
    require_gpu_and_base()
    path = RESULTS / "sharded.json"
    report = read_json(path) if path.exists() else {}
    for name in METHODS:
        method = dataclasses.replace(params.load().methods[name], residency="sharded")
        everybodys: list[Any] = [measure(method, batch, tokens)]
        if world_size() > 1:
            mine, everybodys = everybodys[0], [None] * world_size()
            torch.distributed.all_gather_object(everybodys, mine)
        talk = {"backend": torch.distributed.get_backend()} if world_size() > 1 else {}
        for checkpointing in (False, True):
            ranks = {str(rank): of[checkpointing] for rank, of in enumerate(everybodys)}
            predicted = step_memory(config, method, RANK, batch, tokens, checkpointing, SHARED, processes=world_size())
            key = f"{name}, {world_size()} process(es)" + (", checkpointed" if checkpointing else "")
            block = {"batch": batch, "tokens": tokens, "predicted_peak": predicted.peak, "ranks": ranks, **talk}
            report[shape] = report.get(shape, {}) | {key: block}
            peaks = ", ".join(f"{r['peak'] / 1e9:.2f} GB" if "peak" in r else r["unavailable"] for r in ranks.values())
            print(f"sharded: {shape}, {key}: {peaks}; {predicted.peak / 1e9:.2f} GB by formula", flush=True)
        if is_main_process():
            write_json(path, report | {"environment": environment(device)})


if __name__ == "__main__":
    run(main, distributed=True)
