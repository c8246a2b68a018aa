"""Training and evaluation on 1, 2, … GPUs (without any: processes on the CPU): texts per second, and what of them one
more GPU is worth.

python -m stages.race.scaling NUMBER...   (in a clone of its own, after `dvc repro select`, with nothing else running)
"""

import os
import shutil
from typing import Any

from stages import UserError, run
from stages.benchmark.measure import run_apart
from stages.model.device import environment, pick_device
from stages.model.identity import require_whole_base
from stages.paths import BASE_MODEL, METRICS, RUNS
from stages.race import arguments, whole_number
from stages.report import read_json, write_json


def measure(processes: int) -> dict[str, Any]:
    """Both stages, anew."""
    os.environ["NPROC"] = str(processes)
    run_apart("stages.train")
    shutil.rmtree(RUNS / "train")
    run_apart("stages.evaluate")
    train, evaluate = (read_json(METRICS / f"{name}.json") for name in ("train", "evaluate"))
    return {
        "train_samples_per_second": train["measured"]["samples_per_second"],
        "train_peak_memory_bytes": train["measured"]["peak_memory_bytes"],
        "train_steps": train["facts"]["steps"],
        "evaluate_samples_per_second": evaluate["model"]["samples_per_second"],
        "average_precision": evaluate["model"]["average_precision"],
    }


def main() -> None:
    numbers = arguments("NUMBER")
    for number in numbers:
        whole_number(number, "number of processes")
    require_whole_base(BASE_MODEL)
    if (RUNS / "train").exists():
        raise UserError(f"{RUNS / 'train'} holds a training; expected a fresh clone after `dvc repro select`")
    report: dict[str, Any] = {}
    for number in map(int, numbers):
        print(f"scaling: {number} process(es)", flush=True)
        report[str(number)] = measure(number)
        first = report[numbers[0]]
        for stage in ("train", "evaluate"):
            key = f"{stage}_samples_per_second"
            speedup = report[str(number)][key] / first[key]
            report[str(number)][f"{stage}_efficiency"] = speedup / (number / int(numbers[0]))
        write_json(METRICS / "scaling.json", report | {"environment": environment(pick_device())})


if __name__ == "__main__":
    run(main)
