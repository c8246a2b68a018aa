"""Measures loading and one forward pass under each method, each in a process of its own.

python -m stages.benchmark
"""

import tempfile
from pathlib import Path

from stages import params
from stages.artifacts import write_csv, write_json
from stages.benchmark.measure import measure_apart, run_apart
from stages.command import run
from stages.model.device import environment, pick_device
from stages.paths import BASE_MODEL, METRICS, PLOTS, RUNS

COLUMNS = ["method", "weight_megabytes", "peak_megabytes", "load_seconds_cold", "load_seconds_warm"]


def main() -> None:
    chosen = params.load()
    report = {}
    for name in chosen.benchmark.methods:
        print(f"benchmark: {name}", flush=True)
        report[name] = measure_apart(name, BASE_MODEL)
    RUNS.mkdir(exist_ok=True)
    for name in chosen.benchmark.prequantized:
        print(f"benchmark: {name}, saved quantized and loaded back", flush=True)
        with tempfile.TemporaryDirectory(dir=RUNS, prefix="prequantized-") as folder:
            run_apart("stages.benchmark.prequantize", name, folder)
            report[f"{name}-prequantized"] = measure_apart(name, Path(folder))
    write_json(METRICS / "benchmark.json", {**report, "environment": environment(pick_device())})
    rows = [plot_row(name, block) for name, block in report.items() if "measured" in block]
    write_csv(PLOTS / "benchmark.csv", rows, COLUMNS)


def plot_row(name: str, block: dict) -> dict:
    measured = block["measured"]
    megabytes = {
        "weight_megabytes": block["facts"]["weight_bytes"] / 1e6,
        "peak_megabytes": measured["peak_bytes"] / 1e6,
    }
    return {"method": name, **megabytes, **measured}


if __name__ == "__main__":
    run(main, options=False)
