"""Measures loading and one forward pass under each quantization method, each in a process of its own.

python -m stages.benchmark

The methods are those of benchmark.methods and benchmark.prequantized in params.yaml. Writes metrics/benchmark.json and
metrics/plots/benchmark.csv.
"""

import tempfile
from pathlib import Path
from typing import Any

from stages import params
from stages.artifacts import read_json, write_csv, write_json
from stages.benchmark.processes import run_module
from stages.command import run
from stages.model.device import environment, pick_device
from stages.paths import BASE_MODEL, METRICS, PLOTS, RUNS

COLUMNS = ["method", "weight_megabytes", "peak_megabytes", "load_seconds_cold", "load_seconds_warm"]


def main() -> None:
    chosen = params.load()
    blocks = {}
    for name in chosen.benchmark.methods:
        print(f"benchmark: {name}", flush=True)
        blocks[name] = measured_apart(name, BASE_MODEL)
    RUNS.mkdir(exist_ok=True)
    for name in chosen.benchmark.prequantized:
        print(f"benchmark: {name}, saved quantized and loaded back", flush=True)
        with tempfile.TemporaryDirectory(dir=RUNS, prefix="prequantized-") as folder:
            run_module("stages.benchmark.prequantize", name, folder)
            blocks[f"{name}-prequantized"] = measured_apart(name, Path(folder))
    write_json(METRICS / "benchmark.json", {**blocks, "environment": environment(pick_device())})
    rows = [plot_row(name, block) for name, block in blocks.items() if "measured" in block]
    write_csv(PLOTS / "benchmark.csv", rows, COLUMNS)


def measured_apart(method: str, folder: Path) -> dict[str, Any]:
    """The block that stages.benchmark.measure writes in a new process: {"facts": …, "measured": …}."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "block.json"
        run_module("stages.benchmark.measure", method, str(folder), str(out))
        return read_json(out)


def plot_row(name: str, block: dict[str, Any]) -> dict[str, Any]:
    measured = block["measured"]
    megabytes = {
        "weight_megabytes": block["facts"]["weight_bytes"] / 1e6,
        "peak_megabytes": measured["peak_bytes"] / 1e6,
    }
    return {"method": name, **megabytes, **measured}


if __name__ == "__main__":
    run(main, options=False)
