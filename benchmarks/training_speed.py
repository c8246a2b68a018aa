"""Races the recipes on one GPU: the same model, texts and adapters, a process each.

python -m benchmarks BATCH RECIPE...   (models/base and data/processed/train.jsonl lie there)
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, arguments, require_gpu_and_base, whole_number
from benchmarks.recipe import RECIPES
from stages.artifacts import read_json, write_json
from stages.benchmark.measure import run_apart
from stages.command import run
from stages.errors import UserError

RATIOS = (
    ("speed_over_article", "speed", "article", "samples_per_second"),
    ("speed_over_trl", "speed", "trl", "samples_per_second"),
    ("memory_speed_over_article", "memory", "article", "samples_per_second"),
    ("memory_peak_over_article", "memory", "article", "peak_allocated_bytes"),
    ("evaluate_over_generate", "score", "generate", "samples_per_second"),
)
TOLERANCE = 0.02  # of the loss: bfloat16 sums in another order


def main() -> None:
    batch, *others = arguments("BATCH RECIPE")
    names = list(dict.fromkeys(others))
    for name in names:
        if name not in RECIPES:
            raise UserError(f"recipe: found {name!r}; expected some of {', '.join(RECIPES)}")
    whole_number(batch, "batch")
    require_gpu_and_base()
    blocks = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(f"race: {name}", flush=True)
            out = Path(folder) / f"{name}.json"
            run_apart("benchmarks.recipe", name, batch, str(out))
            blocks[name] = read_json(out)
            write_json(RESULTS / "race.json", report(blocks))


def report(blocks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The recipes' blocks and their ratios. Raises UserError where their losses on the same batch differ, since then
    they don't compute the same."""
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
