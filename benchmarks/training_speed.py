"""Compares the recipes' training and inference speed and memory on one GPU: same model, texts and adapters.

python -m benchmarks.training_speed BATCHES RECIPE...   (needs models/base and data/processed/train.jsonl)

Each recipe runs in a process of its own. Writes results/race.json: a block NAME for 16 texts a step, NAME_64 for 64.
With --keep, the file's other blocks stay: Unsloth and this project need different environments.
With --tokens N, texts are N random tokens instead, and FLOPs are counted with attention.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, command_parser, positive_int, require_gpu_and_base
from benchmarks.recipes import FORWARD_ONLY, RECIPES
from stages.artifacts import read_json, write_json
from stages.benchmark.processes import run_module
from stages.command import run
from stages.errors import UserError
from stages.model.device import environment, pick_device

# Key of the ratio, its numerator's and denominator's recipe, and the figure compared.
RATIOS = (
    ("speed_over_article", "speed", "article", "samples_per_second"),
    ("speed_over_trl", "speed", "trl", "samples_per_second"),
    ("memory_speed_over_article", "memory", "article", "samples_per_second"),
    ("memory_peak_over_article", "memory", "article", "peak_allocated_bytes"),
    ("evaluate_over_generate", "score", "generate", "samples_per_second"),
    ("memory_over_unsloth_checkpointed", "memory", "unsloth_checkpointed", "samples_per_second"),
    ("speed_64_over_trl_tuned_64", "speed_64", "trl_tuned_64", "samples_per_second"),
    ("speed_64_over_unsloth_64", "speed_64", "unsloth_64", "samples_per_second"),
)
PUBLISHED_BATCH = 16
TOLERANCE = 0.02  # of the loss, since bfloat16 sums in another order
OWN_WEIGHTS = re.compile(r"(lora_tuned|speed_lora)(_\d+)?")  # blocks on unquantized weights, whose loss is another


def main() -> None:
    parser = command_parser()
    parser.add_argument("batches", metavar="BATCHES", type=sizes, help="texts in a training step: 16, or 16,64")
    parser.add_argument(
        "recipes", metavar="RECIPE", nargs="+", choices=RECIPES, help=f"one or more of {', '.join(RECIPES)}"
    )
    parser.add_argument("--keep", action="store_true", help="add to the blocks of the file")
    parser.add_argument("--tokens", metavar="N", type=positive_int, help="tokens of each text with prompt and answer")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the file to write; with --tokens, one of its own")
    options = parser.parse_args()
    if options.tokens and (not options.out or set(options.recipes) & set(FORWARD_ONLY)):
        parser.error(f"--tokens needs --out, and recipes that train: none of {', '.join(FORWARD_ONLY)}")
    file = options.out or RESULTS / "race.json"
    require_gpu_and_base()
    blocks: dict[str, dict[str, Any]] = kept_blocks(file, options.tokens) if options.keep else {}
    for batch in options.batches:
        for name in dict.fromkeys(options.recipes):
            if name in FORWARD_ONLY and batch != options.batches[0]:
                continue  # these have a batch of their own
            key = block_name(name, batch)
            print(f"training_speed: {key}", flush=True)
            blocks[key] = run_recipe(name, batch, options.tokens)
            write_json(file, blocks)  # what was measured stays, also where it can't be compared
            write_json(file, with_ratios(blocks))


def kept_blocks(file: Path, tokens: int | None) -> dict[str, dict[str, Any]]:
    """The blocks of an earlier run without their ratios. Raises UserError if another device measured one, or other
    lengths than `tokens`."""
    if not file.exists():
        return {}
    blocks = {name: block for name, block in read_json(file).items() if name != "ratios"}
    here = environment(pick_device())["device"]
    others = {block["environment"]["device"] for block in blocks.values() if "environment" in block} - {here}
    if others:
        raise UserError(f"{file}: found figures of {', '.join(others)}, and this is {here}: leave --keep out")
    lengths = {block.get("tokens") for block in blocks.values() if "environment" in block} - {tokens}
    if lengths:
        raise UserError(f"{file}: found --tokens {lengths.pop()}, and here {tokens}: name another file by --out")
    return blocks


def sizes(text: str) -> list[int]:
    """Whole numbers above 0 with commas between them, as an argparse type."""
    return list(dict.fromkeys(positive_int(part) for part in text.split(",")))


def block_name(name: str, batch: int) -> str:
    """The key of a recipe's block: its name for 16 texts a step and for what does not train."""
    return name if batch == PUBLISHED_BATCH or name in FORWARD_ONLY else f"{name}_{batch}"


def run_recipe(name: str, batch: int, tokens: int | None = None) -> dict[str, Any]:
    """The recipe's block from a new process: {"unavailable": reason} if the recipe or its process fails."""
    length = ["--tokens", str(tokens)] if tokens else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "block.json"
        try:
            run_module("benchmarks.recipes", name, str(batch), str(out), *length)
        except UserError as error:
            return {"unavailable": str(error)}
        return read_json(out)


def with_ratios(blocks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Adds the ratios between recipes. Raises UserError if their losses on the same batch differ.

    Recipes whose losses differ do not compute the same, so their speeds cannot be compared.
    """
    ran = {name: block for name, block in blocks.items() if "unavailable" not in block}
    losses = {name: block["loss"] for name, block in ran.items() if not OWN_WEIGHTS.fullmatch(name)}
    if losses and max(losses.values()) - min(losses.values()) > TOLERANCE:
        raise UserError(f"the recipes' losses on the same batch differ: {losses}; their speeds can't be compared")
    ratios = {
        key: ran[name][figure] / ran[other][figure]
        for key, name, other, figure in RATIOS
        if name in ran and other in ran
    }
    return {**blocks, "ratios": ratios}


if __name__ == "__main__":
    run(main)
