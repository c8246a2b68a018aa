"""Says, by formula, what can be trained on a GPU, before anything is downloaded.

python -m stages.plan --gpu-gb 24 [--gpus 1] [--tokens 512] [--config FOLDER]
"""

import argparse
import dataclasses
import json
import math
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from stages import params
from stages.command import run
from stages.errors import UserError
from stages.params import Method
from stages.plan.memory import step_memory
from stages.plan.shapes import SHAPES, config_of

GB = 1e9  # a card sold as 24 GB leaves 24.1 to 25.8 of these
CONTEXT = 0.5 * GB  # what CUDA itself takes of a card
MARGIN = 1.1  # over the formula: its own error, and what an allocator loses between blocks
NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


def largest_batch(
    config: PretrainedConfig, method: Method, r: int, tokens: int, checkpointing: bool, gpu_bytes: float, gpus: int = 1
) -> tuple[int, float] | None:
    """The largest of BATCHES, dealt out to so many GPUs, that fits in that many bytes on each, and its predicted peak
    there; None where none does."""
    peaks = {
        batch: step_memory(config, method, r, batch, tokens, checkpointing, processes=gpus).peak for batch in BATCHES
    }
    fitting = [batch for batch, peak in peaks.items() if peak * MARGIN + CONTEXT <= gpu_bytes]
    return (fitting[-1], peaks[fitting[-1]]) if fitting else None


def with_split(methods: dict[str, Method]) -> dict[str, Method]:
    """Each method, and where its blocks can be split over GPUs, that too."""
    both = {}
    for name, method in methods.items():
        both[name] = method
        if method.residency == "quantized" and not method.load_in_8bit:
            both[f"{name}, sharded"] = dataclasses.replace(method, residency="sharded")
    return both


def table(
    configs: dict[str, PretrainedConfig], methods: dict[str, Method], r: int, tokens: int, gpu_bytes: float, gpus: int
) -> list[list[str]]:
    """Rows of text, the heading first: a row a method and form of checkpointing, a column a model."""
    rows = [["method", "checkpointing", *configs]]
    for name, method in methods.items():
        for checkpointing in (False, True):
            found = [
                largest_batch(each, method, r, tokens, checkpointing, gpu_bytes, gpus) for each in configs.values()
            ]
            cells = [cell(*fit) if fit else "-" for fit in found]
            rows.append([name, "yes" if checkpointing else "no", *cells])
    return rows


def cell(batch: int, peak: float) -> str:
    more = ">=" if batch == BATCHES[-1] else ""
    return f"{more + str(batch):>5} ({peak / GB:4.1f} GB)"


def read_config(path: Path) -> PretrainedConfig:
    """Of a folder with a model's config.json. Raises UserError for a model that the formula does not know."""
    if not (path / "config.json").is_file():
        raise UserError(f"--config {path} holds no config.json; expected a model's folder")
    try:
        given = json.loads((path / "config.json").read_text(encoding="utf-8"))
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises what it comes across
        reason = str(error).split("\n")[0]
        raise UserError(f"--config {path}: config.json is no model's that can be read: {reason}") from None
    if config.model_type not in ("llama", "mistral", "qwen2"):
        raise UserError(
            f"--config {path} is of type {config.model_type}; the formula knows llama, mistral and qwen2 only"
        )
    for key in NEEDED + ("num_key_value_heads",) * ("num_key_value_heads" in given):
        if type(given.get(key)) is not int or given[key] < 1:
            raise UserError(f"--config {path}: {key} is {given.get(key)!r}; expected a whole number above 0")
    return config


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.plan", description="What fits on a GPU.")
    parser.add_argument("--gpu-gb", type=float, required=True, help="the card's memory as it is sold, in GB")
    parser.add_argument("--gpus", type=int, default=1, help="of that size, one a process (NPROC)")
    parser.add_argument("--tokens", type=int, help="of a text with its prompt (default: prompt.max_length)")
    parser.add_argument("--config", type=Path, help="a folder with config.json, instead of the known models")
    options = parser.parse_args()
    chosen = params.load()
    tokens = chosen.prompt.max_length if options.tokens is None else options.tokens
    if not 0 < options.gpu_gb < math.inf or min(tokens, options.gpus) < 1:
        found = f"--gpu-gb {options.gpu_gb} --gpus {options.gpus} --tokens {tokens}"
        raise UserError(f"found {found}; expected numbers above 0")
    configs = {str(options.config): read_config(options.config)} if options.config else dict(map(named, SHAPES))
    methods = {name: chosen.methods[name] for name in chosen.benchmark.methods}
    where = f"a GPU of {options.gpu_gb:g} GB"
    if options.gpus > 1:
        methods = with_split(methods)
        where = f"{options.gpus} GPUs of {options.gpu_gb:g} GB together"
    print(
        f"Largest batch of texts of {tokens} tokens (predicted peak) that trains in bfloat16 on {where},\n"
        f"profile plain, adapters of rank {chosen.train.r} on all layers, {MARGIN - 1:.0%} and {CONTEXT / GB:g} GB to "
        "spare:\n"
    )
    rows = table(configs, methods, chosen.train.r, tokens, options.gpu_gb * GB, options.gpus)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def named(shape: str) -> tuple[str, PretrainedConfig]:
    return shape, config_of(shape)


if __name__ == "__main__":
    run(main)
