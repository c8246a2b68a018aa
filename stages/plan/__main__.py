"""Prints the largest batch that trains on a GPU, by method and model, before anything is downloaded.

python -m stages.plan --gpu-gb 24 [--gpus 1] [--tokens 512] [--config FOLDER]

The figures come from the formula in stages/plan/memory.py: profile plain, bfloat16, models built like Llama and Qwen2.
"""

import argparse
import dataclasses
import math
from pathlib import Path

from transformers import PretrainedConfig

from stages import params
from stages.command import run
from stages.errors import UserError
from stages.params import Method
from stages.plan.fit import BATCHES, CUDA_CONTEXT, GB, MARGIN, largest_batch
from stages.plan.shapes import SHAPES, config_of, read_config


def main() -> None:
    options = parse_options()
    chosen = params.load()
    tokens = chosen.prompt.max_length if options.tokens is None else options.tokens
    if not 0 < options.gpu_gb < math.inf or min(tokens, options.gpus) < 1:
        found = f"--gpu-gb {options.gpu_gb} --gpus {options.gpus} --tokens {tokens}"
        raise UserError(f"found {found}; expected numbers above 0")
    methods = distinct(chosen.methods)
    if options.gpus > 1:
        methods = with_sharded(methods)
    if options.config:
        configs = {str(options.config): read_config(options.config)}
    else:
        configs = {shape: config_of(shape) for shape in SHAPES}
    size = f"{options.gpu_gb:g} GB"
    gpus = f"{options.gpus} GPUs of {size} together" if options.gpus > 1 else f"a GPU of {size}"
    print(
        f"Largest batch of texts of {tokens} tokens (predicted peak) that trains in bfloat16 on {gpus},\n"
        f"profile plain, adapters of rank {chosen.train.r} on all linear layers, {MARGIN - 1:.0%} and "
        f"{CUDA_CONTEXT / GB:g} GB to spare:\n"
    )
    print_aligned(table_rows(configs, methods, chosen.train.r, tokens, options.gpu_gb * GB, options.gpus))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu-gb", type=float, required=True, help="a card's memory as it is sold, in GB")
    parser.add_argument("--gpus", type=int, default=1, help="number of such cards, one per process (NPROC); default 1")
    parser.add_argument("--tokens", type=int, help="tokens of a text with its prompt; default: prompt.max_length")
    parser.add_argument("--config", type=Path, help="a folder with a model's config.json, instead of the known models")
    return parser.parse_args()


def distinct(methods: dict[str, Method]) -> dict[str, Method]:
    """The methods without those that keep the base model in memory as an earlier one does."""
    found: dict[tuple, str] = {}
    for name, method in methods.items():
        quantized = (method.load_in_8bit, method.load_in_4bit, method.bnb_4bit_use_double_quant)
        found.setdefault((*quantized, method.residency), name)
    return {name: methods[name] for name in found.values()}


def with_sharded(methods: dict[str, Method]) -> dict[str, Method]:
    """The methods, each followed by its sharded form if its decoder layers can be sharded over GPUs."""
    both = {}
    for name, method in methods.items():
        both[name] = method
        if method.residency == "quantized" and not method.load_in_8bit:
            both[f"{name}, sharded"] = dataclasses.replace(method, residency="sharded")
    return both


def table_rows(
    configs: dict[str, PretrainedConfig], methods: dict[str, Method], r: int, tokens: int, gpu_bytes: float, gpus: int
) -> list[list[str]]:
    """The heading, then a row for each method and form of checkpointing, with a column for each model.

    Args:
        configs: the models' configurations by name.
        methods: the methods by name.
        r: rank of the adapters.
        tokens: tokens of each text, prompt included.
        gpu_bytes: memory of each GPU.
        gpus: number of GPUs.
    """
    rows = [["method", "checkpointing", *configs]]
    for name, method in methods.items():
        for checkpointing in (False, True):
            found = [
                largest_batch(each, method, r, tokens, checkpointing, gpu_bytes, gpus) for each in configs.values()
            ]
            cells = [table_cell(*fit) if fit else "-" for fit in found]
            rows.append([name, "yes" if checkpointing else "no", *cells])
    return rows


def table_cell(batch: int, peak: float) -> str:
    at_least = ">=" if batch == BATCHES[-1] else ""
    return f"{at_least + str(batch):>5} ({peak / GB:4.1f} GB)"


def print_aligned(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    run(main)
