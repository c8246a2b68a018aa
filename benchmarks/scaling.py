"""Training and scoring by 1, 2, … GPUs (without any: processes on the CPU): texts a second, and what of them one more
is worth.

python -m benchmarks.scaling PROCESSES BATCH...   (as 1,2 64 128; models/base and data/processed/train.jsonl lie there)
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, arguments, whole_number
from stages import params
from stages.artifacts import read_json, write_json
from stages.benchmark.measure import run_apart
from stages.command import run
from stages.errors import UserError
from stages.model.provenance import require_whole_base
from stages.paths import BASE_MODEL

TOLERANCE = 0.01  # bfloat16 sums in another order; between one GPU and two .002 was seen


def report(blocks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The blocks by number of processes, each rate with its efficiency: over the first block's, a process. Raises
    UserError where what was computed differs: in training the loss of the first steps, in scoring the mean log-odds."""
    first = next(iter(blocks.values()))
    whole: dict[str, Any] = {}
    for number, block in blocks.items():
        whole[number] = {}
        for name, rate in block["rates"].items():
            reference = first["rates"][name]
            if abs(rate["compared"] - reference["compared"]) > TOLERANCE:
                found = f"{rate['compared']:.4f}, where {next(iter(blocks))} computed {reference['compared']:.4f}"
                raise UserError(
                    f"{name}: {number} process(es) computed {found} (loss or mean log-odds, tolerance {TOLERANCE}): "
                    "their rates can't be compared"
                )
            speedup = rate["samples_per_second"] / reference["samples_per_second"]
            whole[number][name] = rate | {"efficiency": speedup * first["processes"] / block["processes"]}
    return whole | {"environment": first["environment"]}


def main() -> None:
    processes, *batches = arguments("PROCESSES BATCH")
    if "," not in processes:
        raise UserError(f"PROCESSES: found {processes!r}; expected two numbers or more, with commas, as 1,2")
    for number in [*processes.split(","), *batches]:
        whole_number(number, "PROCESSES or BATCH")
    require_whole_base(BASE_MODEL)
    chosen, blocks = params.load(), {}
    facts = {"method": chosen.method_name, "profile": chosen.train.profile}
    with tempfile.TemporaryDirectory() as folder:
        for number in processes.split(","):
            print(f"scaling: {number} process(es)", flush=True)
            out = Path(folder) / f"{number}.json"
            os.environ["NPROC"] = number
            run_apart("benchmarks.rates", str(out), *batches)
            blocks[number] = read_json(out)
            write_json(RESULTS / "scaling.json", report(blocks) | facts)


if __name__ == "__main__":
    run(main)
