"""Measures loading and one forward pass under each method, each in a process of its own.

python -m stages.benchmark
"""

import tempfile
from pathlib import Path

from stages import params, run
from stages.benchmark.measure import Job, measure_apart
from stages.benchmark.prequantize import prequantize_apart
from stages.model.device import environment, pick_device
from stages.paths import BASE_MODEL, METRICS, PLOTS, RUNS
from stages.report import write_csv, write_json

COLUMNS = ["method", "weight_megabytes", "peak_megabytes", "load_seconds_cold", "load_seconds_warm"]


def main() -> None:
    chosen = params.load()
    jobs = {name: Job(name, BASE_MODEL) for name in chosen.benchmark.methods}
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RUNS, prefix="prequantized-") as folder:
        for name in chosen.benchmark.prequantized:
            saved = Path(folder) / name
            prequantize_apart(name, saved)
            jobs[f"{name}-prequantized"] = Job(name, saved)
        report = {name: measure_apart(name, job) for name, job in jobs.items()}
    write_json(METRICS / "benchmark.json", {**report, "environment": environment(pick_device())})
    write_csv(PLOTS / "benchmark.csv", [plot_row(name, block) for name, block in report.items()], COLUMNS)


def plot_row(name: str, block: dict) -> dict:
    measured = block.get("measured", {})
    return {
        "method": name,
        "weight_megabytes": block["facts"].get("weight_bytes", 0) / 1e6,
        "peak_megabytes": measured.get("peak_bytes", 0) / 1e6,
        **{key: measured.get(key, 0) for key in COLUMNS[3:]},
    }


if __name__ == "__main__":
    run(main)
