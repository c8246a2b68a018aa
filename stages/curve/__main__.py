"""Writes each system's average precision by the number of texts that it learns from: when does fine-tuning pay?

python -m stages.curve --queue && dvc exp run --run-all && python -m stages.curve      (or: make curve)
"""

import argparse
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages import params
from stages.artifacts import write_json
from stages.collect.__main__ import read_pool
from stages.command import run
from stages.curve.experiments import AHEAD, SYSTEMS, point_of_test, point_out_of_fold
from stages.errors import UserError
from stages.folds.__main__ import with_bounds
from stages.out_of_fold import FIFTHS
from stages.params import Params
from stages.paths import METRICS, PROCESSED
from stages.seeds.experiments import list_experiments, present_params, require_queue
from stages.seeds.statistics import Run, finished, same_but_for
from stages.text.example import Example, read_examples

SMALLEST = 200  # texts of train: fewer are too few to say which system is better
ALL = "all"
Size = int | None  # the value of prepare.train_rows; None is all of train


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.curve", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", metavar="N,N,all", help="texts of train; default: 200, 400, 800, … and all")
    parser.add_argument("--folds", action="store_true", help="out of fold over the whole pool, five runs a size")
    parser.add_argument("--queue", action="store_true", help="queue the experiments, and collect nothing")
    parser.add_argument("--out", type=Path, default=METRICS / "curve.json", help="default: metrics/curve.json")
    arguments = parser.parse_args()
    chosen = params.load()
    require_whole(chosen)
    pool = read_pool(chosen) if arguments.folds else []
    train = read_train()
    sizes = read_sizes(arguments.sizes, len(train))
    folds = list(range(FIFTHS)) if arguments.folds else [None]
    if arguments.queue:
        require_queue(chosen)
        queue(sizes, folds)
        return
    runs = find_runs(sizes, folds)
    points = {}
    for size in sizes:
        of_size = [runs[size, fold] for fold in folds]
        if arguments.folds:
            points[name_of(size)] = point_out_of_fold(of_size, pool, {row.source for row in train}, chosen)
        else:
            points[name_of(size)] = point_of_test(of_size[0])
    report = {"dataset": chosen.dataset_name, "model": chosen.model_name, "folds": len(folds), "sizes": points}
    write_json(arguments.out, report)
    for point in points.values():
        print_point(point)


def require_whole(chosen: Params) -> None:
    """Raises UserError if the present run holds out a fold, learns from fewer rows, or has answers without scores."""
    for name, value in (("fold", chosen.prepare.fold), ("train_rows", chosen.prepare.train_rows)):
        if value is not None:
            raise UserError(f"prepare.{name} is {value}; expected null: the experiments set it")
    if chosen.evaluate.mode != "score":
        raise UserError(f"evaluate.mode is {chosen.evaluate.mode}, whose answers have no scores; expected score")


def read_train() -> list[Example]:
    """The rows of train as they are now."""
    file = PROCESSED / "train.jsonl"
    if not file.is_file():
        raise UserError(f"{file} is missing; expected the rows to learn from: run `dvc repro prepare`")
    return read_examples(file)


def read_sizes(text: str | None, rows: int) -> list[Size]:
    """The sizes that a text names, the smallest first. Without a text: SMALLEST and its doubles below `rows`, and all.

    >>> read_sizes(None, 1000), read_sizes("all,50,100", 1000)
    ([200, 400, 800, None], [50, 100, None])
    """
    if not text:
        doubles = [SMALLEST * 2**power for power in range(rows.bit_length())]
        return [*(size for size in doubles if size < rows), None]
    numbers = set()
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word != ALL and not (word.isascii() and word.isdigit() and 0 < int(word) < rows):
            raise UserError(
                f"sizes: found {word!r}; expected whole numbers from 1 to {rows - 1}, or {ALL} for all {rows} rows of "
                "train, separated by commas"
            )
        if word != ALL:
            numbers.add(int(word))
    return [*sorted(numbers), *([None] if ALL in words else [])]


def name_of(size: Size) -> str:
    return ALL if size is None else str(size)


def as_param(value: int | None) -> str:
    return "null" if value is None else str(value)


def queue(sizes: list[Size], folds: list[int] | list[None]) -> None:
    """Queues an experiment for each size and fold. Those that DVC's run cache knows train nothing."""
    command = ["dvc", "exp", "run", "--queue", "--set-param", f"prepare.train_rows={','.join(map(as_param, sizes))}"]
    if folds != [None]:
        command += ["--set-param", f"prepare.fold={','.join(map(as_param, folds))}"]
    done = subprocess.run(command)
    if done.returncode:
        raise UserError(f"`{' '.join(command)}` failed with status {done.returncode}; see above")


def find_runs(sizes: list[Size], folds: list[int] | list[None]) -> dict[tuple[Any, ...], Run]:
    """The finished experiment of each size and fold with the present params.

    The commit's own figures count where DVC wrote no experiment, because it would have been the same.
    """
    listed = list_experiments()
    runs = same_but_for(list(finished(listed)), present_params(listed), "prepare.train_rows", "prepare.fold")
    missing = [(size, fold) for size in sizes for fold in folds if (size, fold) not in runs]
    if missing:
        size, fold = missing[0]
        where = f"prepare.train_rows {as_param(size)} and prepare.fold {as_param(fold)}"
        raise UserError(
            f"found no finished experiment of the current params for {len(missing)} of {len(sizes) * len(folds)} runs, "
            f"the first with {where}: run `make curve`, or leave its size out, as in `make curve SIZES=400,800,{ALL}`"
        )
    return runs


def print_point(point: Mapping[str, Any]) -> None:
    """Prints average precision of each system, and how far trained systems are ahead of the best cheap one."""
    size = f"curve: {point['train']['rows']} texts of train"
    print(f"{size}: " + ", ".join(f"{system} {point[system]['average_precision']:.3f}" for system in SYSTEMS))
    less = (f"{system} {with_bounds(point['ahead'][system])}" for system in AHEAD)
    print(f"{size}: minus {point['best_cheap']['name']}: {', '.join(less)}")


if __name__ == "__main__":
    run(main)
