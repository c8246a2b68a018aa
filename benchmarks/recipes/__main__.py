"""Measures one recipe in a process of its own: its speed, its memory and its loss.

python -m benchmarks.recipes NAME BATCH OUT [--tokens N]   (benchmarks.training_speed calls it)
"""

from pathlib import Path

from benchmarks.common import command_parser, positive_int
from benchmarks.recipes import RECIPES, load_recipe
from stages.artifacts import write_json
from stages.command import run


def main() -> None:
    parser = command_parser()
    parser.add_argument("name", metavar="NAME", choices=RECIPES, help=f"one of {', '.join(RECIPES)}")
    parser.add_argument("batch", metavar="BATCH", type=positive_int, help="texts in a training step")
    parser.add_argument("out", metavar="OUT", type=Path, help="the JSON file to write")
    parser.add_argument("--tokens", metavar="N", type=positive_int, help="train on texts of N random tokens instead")
    options = parser.parse_args()
    load_recipe(options.name)  # before measure: Unsloth rewrites transformers, so it has to be imported first
    from benchmarks.recipes.measure import measure_recipe

    write_json(options.out, measure_recipe(options.name, options.batch, options.tokens))


if __name__ == "__main__":
    run(main)
