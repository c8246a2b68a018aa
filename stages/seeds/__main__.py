"""Writes mean and standard deviation of metrics over experiments that differ only in train.seed.

dvc exp run --queue -S 'train.seed=1,2,3' && dvc exp run --run-all && python -m stages.seeds      (or: make seeds)
"""

import argparse
from pathlib import Path

from stages import params
from stages.artifacts import write_json
from stages.command import run
from stages.errors import UserError
from stages.paths import METRICS
from stages.seeds.experiments import list_experiments, present_params, require_queue
from stages.seeds.statistics import finished, same_but_for_seed, spread


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.seeds", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=METRICS / "seeds.json", help="default: metrics/seeds.json")
    parser.add_argument(
        "--check", action="store_true", help="only check whether queued experiments would have all that they need"
    )
    arguments = parser.parse_args()
    chosen = params.load()
    if "seed" in chosen.method.train:
        raise UserError(
            f"methods.{chosen.method_name}.train.seed is {chosen.method.train['seed']} and replaces train.seed, so "
            "that all runs would be the same; expected no seed there: remove it"
        )
    if arguments.check:
        require_queue(chosen)
        return
    listed = list_experiments()
    runs = same_but_for_seed(list(finished(listed)), present_params(listed))
    if len(runs) < 2:
        raise UserError(
            f"found {len(runs)} finished experiments of the current params that differ in train.seed alone; expected 2 "
            "or more: run `make seeds`, or queue some with `dvc exp run --queue -S 'train.seed=1,2,3'`"
        )
    report = spread(runs)
    write_json(arguments.out, report)
    for name in ("model", "baseline", "difference"):
        if "average_precision" in report.get(name, {}):
            found = report[name]["average_precision"]
            print(
                f"seeds: {name}: average precision {found['mean']:.3f}, standard deviation {found['std']:.3f}, "
                f"from {found['min']:.3f} to {found['max']:.3f} over {len(runs)} seeds"
            )


if __name__ == "__main__":
    run(main)
