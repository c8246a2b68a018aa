"""A training step of a model whose blocks are split over processes, one a GPU: the memory of each, beside the formula.

NPROC=N python -m stages.race.sharded SHAPE BATCH TOKENS   (models/base is a model of that shape; N = 1: not split)
"""

import dataclasses
import gc
import time
from typing import Any

import torch
import torch.distributed

from stages import UserError, is_main_process, params, run, world_size
from stages.model.adapter import attach_adapter
from stages.model.device import environment, pick_device
from stages.model.load import load_base
from stages.model.memory import step_memory
from stages.model.shapes import config_of
from stages.model.shard import shard_blocks
from stages.params import Method
from stages.paths import METRICS
from stages.race import arguments, require_gpu_and_base, whole_number
from stages.race.memory import RANK, SHARED, adapter_params, checkpoint_activations, measure_step
from stages.report import read_json, write_json

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
    model = shard_blocks(attach_adapter(load_base(method), train), method)
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
    path = METRICS / "sharded.json"
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
    run(main, spread=True)
