"""Trains what the plan promises for smaller cards, on a GPU limited to their memory.

python -m benchmarks.memory_limits SHAPE GB...   (needs models/base of that shape: benchmarks.random_model)

Writes results/cards.json.
"""

import gc
from typing import Any

import torch

from benchmarks.common import RESULTS, command_parser, positive_int, require_gpu_and_base
from benchmarks.step_memory import RANK, adapter_params, checkpoint_activations, measure_step
from stages import params
from stages.artifacts import read_json, write_json
from stages.command import run
from stages.model.device import environment, pick_device
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.plan.fit import CUDA_CONTEXT, GB, largest_batch
from stages.plan.shapes import SHAPES, config_of

METHODS = ("lora", "qlora-dq")
TOKENS = 512  # of a text with its prompt


def train_within(shape: str, card: int, method: str, checkpointing: bool) -> dict[str, Any]:
    """Takes three steps with the plan's largest batch, in the memory that a smaller card would leave.

    Args:
        shape: the base model's name in SHAPES.
        card: the card's memory as it is sold, in GB.
        method: a method's name in params.yaml.
        checkpointing: whether each decoder layer keeps its input alone.
    """
    chosen = params.load()
    plan = largest_batch(config_of(shape), chosen.methods[method], RANK, TOKENS, checkpointing, card * GB)
    block: dict[str, Any] = {"batch": plan[0] if plan else 0}
    if not plan:
        return block
    limit = card * GB - CUDA_CONTEXT
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
    parser = command_parser()
    parser.add_argument("shape", metavar="SHAPE", choices=SHAPES, help=f"one of {', '.join(SHAPES)}")
    parser.add_argument(
        "cards", metavar="GB", type=positive_int, nargs="+", help="a card's memory as it is sold, in GB"
    )
    options = parser.parse_args()
    require_gpu_and_base()
    path = RESULTS / "cards.json"
    known = read_json(path) if path.exists() else {}
    blocks: dict[str, Any] = {}
    for card in options.cards:
        for method in METHODS:
            for checkpointing in (False, True):
                name = f"{card} GB, {method}" + (", checkpointed" if checkpointing else "")
                blocks[name] = train_within(options.shape, card, method, checkpointing)
                print(f"memory_limits: {options.shape}, {name}: {blocks[name]}", flush=True)
                gc.collect()
                torch.cuda.empty_cache()
                write_json(path, known | {options.shape: blocks, "environment": environment(pick_device())})


if __name__ == "__main__":
    run(main)
