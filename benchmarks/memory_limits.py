"""Trains what the plan promises for smaller cards, on a GPU held to their memory.

python -m benchmarks.memory_limits SHAPE GB...   (models/base is a model of that shape)
"""

import gc
from typing import Any

import torch

from benchmarks import RESULTS, arguments, require_gpu_and_base, whole_number
from benchmarks.step_memory import RANK, adapter_params, checkpoint_activations, measure_step
from stages import params
from stages.artifacts import read_json, write_json
from stages.command import run
from stages.model.device import environment, pick_device
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.plan.__main__ import CONTEXT, GB, largest_batch
from stages.plan.shapes import config_of

METHODS = ("lora", "qlora-dq")
TOKENS = 512  # of a text with its prompt


def trains(shape: str, card: int, method: str, checkpointing: bool) -> dict[str, Any]:
    """Loads the model and takes three steps with the plan's largest batch, in the memory that the card would leave."""
    chosen = params.load()
    plan = largest_batch(config_of(shape), chosen.methods[method], RANK, TOKENS, checkpointing, card * GB)
    block: dict[str, Any] = {"batch": plan[0] if plan else 0}
    if not plan:
        return block
    limit = card * GB - CONTEXT
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    torch.cuda.reset_peak_memory_stats()
    block |= {"predicted_peak": plan[1], "limit": limit}
    try:
        base = load_base(chosen.methods[method])
        block["peak_of_loading"] = torch.cuda.max_memory_allocated()
        if checkpointing:
            checkpoint_activations(base)
        step = measure_step(attach_adapter(base, adapter_params(chosen)), plan[0], TOKENS)
        return block | {"fits": True, "peak": step["peak"], "reserved": torch.cuda.max_memory_reserved()}
    except torch.OutOfMemoryError as error:
        return block | {"fits": False, "unavailable": str(error).splitlines()[0]}


def main() -> None:
    shape, *sizes = arguments("SHAPE GB")
    config_of(shape)
    cards = [whole_number(size, "GB") for size in sizes]
    require_gpu_and_base()
    path = RESULTS / "cards.json"
    known = read_json(path) if path.exists() else {}
    blocks: dict[str, Any] = {}
    for card in cards:
        for method in METHODS:
            for checkpointing in (False, True):
                name = f"{card} GB, {method}" + (", checkpointed" if checkpointing else "")
                blocks[name] = trains(shape, card, method, checkpointing)
                print(f"cards: {shape}, {name}: {blocks[name]}", flush=True)
                gc.collect()
                torch.cuda.empty_cache()
                write_json(path, known | {shape: blocks, "environment": environment(pick_device())})


if __name__ == "__main__":
    run(main)
