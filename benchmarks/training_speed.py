"""Compares the recipes' training and inference speed and memory on one GPU: same model, texts and adapters.

python -m benchmarks.training_speed BATCH RECIPE...   (needs models/base and data/processed/train.jsonl)

Each recipe runs in a process of its own. Writes results/race.json.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, command_parser, positive_int, require_gpu_and_base
from benchmarks.recipes import RECIPES
from stages.artifacts import read_json, write_json
from stages.benchmark.processes import run_module
from stages.command import run
from stages.errors import UserError

# Key of the ratio, its numerator's and denominator's recipe, and the figure compared.
RATIOS = (
    ("speed_over_article", "speed", "article", "samples_per_second"),
    ("speed_over_trl", "speed", "trl", "samples_per_second"),
    ("memory_speed_over_article", "memory", "article", "samples_per_second"),
    ("memory_peak_over_article", "memory", "article", "peak_allocated_bytes"),
    ("evaluate_over_generate", "score", "generate", "samples_per_second"),
)
TOLERANCE = 0.02  # of the loss, since bfloat16 sums in another order


def main() -> None:
    parser = command_parser()
    parser.add_argument("batch", metavar="BATCH", type=positive_int, help="texts in a training step")
    parser.add_argument(
        "recipes", metavar="RECIPE", nargs="+", choices=RECIPES, help=f"one or more of {', '.join(RECIPES)}"
    )
    options = parser.parse_args()
    require_gpu_and_base()
    blocks: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(options.recipes):
        print(f"training_speed: {name}", flush=True)
        blocks[name] = run_recipe(name, options.batch)
        write_json(RESULTS / "race.json", with_ratios(blocks))


def run_recipe(name: str, batch: int) -> dict[str, Any]:
    """The recipe's block from a new process: {"unavailable": reason} if the recipe or its process fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "block.json"
        try:
            run_module("benchmarks.recipes", name, str(batch), str(out))
        except UserError as error:
            return {"unavailable": str(error)}
        return read_json(out)


def with_ratios(blocks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Adds the ratios between recipes. Raises UserError if their losses on the same batch differ.

    Recipes whose losses differ do not compute the same, so their speeds cannot be compared.
    """
    ran = {name: block for name, block in blocks.items() if "unavailable" not in block}
    losses = {name: block["loss"] for name, block in ran.items()}
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
