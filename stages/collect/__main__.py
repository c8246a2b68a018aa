"""Writes the model's out-of-fold scores into data/folds, from five experiments that differ only in prepare.fold.

dvc exp run --queue -S prepare.fold=0,1,2,3,4 && dvc exp run --run-all && python -m stages.collect   (or: make folds)
"""

import argparse

from stages import params
from stages.collect.experiments import read_fold, require_rows
from stages.command import run
from stages.errors import UserError
from stages.folds.scores import data_hash, recipe, write_collected
from stages.out_of_fold import FIFTHS
from stages.params import Params
from stages.paths import FOLD_SCORES, PROCESSED
from stages.seeds.experiments import list_experiments, present_params, require_queue
from stages.seeds.statistics import Run, finished, same_but_for
from stages.text.example import Example, read_examples


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.collect", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="only check whether queued experiments would have all that they need"
    )
    arguments = parser.parse_args()
    chosen = params.load()
    if chosen.evaluate.mode != "score":
        raise UserError(f"evaluate.mode is {chosen.evaluate.mode}, whose answers have no scores; expected score")
    pool = read_pool(chosen)
    if arguments.check:
        require_queue(chosen)
        return
    folds = [read_fold(fold, run) for fold, run in enumerate(runs_of_folds())]
    scores = {source: score for fold in folds for source, score in fold.scores.items()}
    require_rows(pool, [example for fold in folds for example in fold.test])
    record = {
        "data": data_hash(pool),
        "dataset": chosen.dataset_name,
        "rows": len(pool),
        "params": recipe(chosen),
        "environment": folds[0].environment,
        "date": max(fold.date for fold in folds),
        "folds": {str(number): fold.chosen for number, fold in enumerate(folds)},
    }
    write_collected(FOLD_SCORES, {example.source: scores[example.source] for example in pool}, record)
    print(
        f"collect: {len(pool)} rows in {FOLD_SCORES}; `dvc repro` compares the systems on them, in metrics/folds.json"
    )


def read_pool(chosen: Params) -> list[Example]:
    """The rows of data/processed, which must be of a pool with folds. Raises UserError if they are not."""
    files = [PROCESSED / f"{name}.jsonl" for name in ("train", "valid", "test")]
    missing = [file for file in files if not file.is_file()]
    prepare = chosen.prepare
    if missing or prepare.fold is not None:
        found = f"{missing[0]} is missing" if missing else f"prepare.fold is {prepare.fold}"
        raise UserError(f"{found}; expected the rows of a run with prepare.fold null: run `dvc repro prepare`")
    if prepare.train_rows is not None:
        raise UserError(
            f"prepare.train_rows is {prepare.train_rows}; expected null, so that no row of the pool is missing"
        )
    pool = [example for file in files for example in read_examples(file)]
    if min(example.fold for example in pool) < 0:
        raise UserError(
            f"datasets.{chosen.dataset_name} has no folds; expected a pool, with {FIFTHS} units and {FIFTHS} rows of "
            "each class or more"
        )
    return pool


def runs_of_folds() -> list[Run]:
    """The finished experiment of each fold with the present params."""
    listed = list_experiments()
    runs = same_but_for(list(finished(listed)), present_params(listed), "prepare.fold")
    missing = [str(fold) for fold in range(FIFTHS) if (fold,) not in runs]
    if missing:
        raise UserError(
            f"found no finished experiment of the current params with prepare.fold {', '.join(missing)}; expected one "
            "for each fold: run `make folds`, or queue these with `dvc exp run --queue -S prepare.fold="
            f"{','.join(missing)}`"
        )
    return [runs[fold,] for fold in range(FIFTHS)]


if __name__ == "__main__":
    run(main)
