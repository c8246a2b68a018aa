"""Training and scoring by 1, 2, … GPUs (without any: processes on the CPU): texts a second, and what of them one more
is worth.

python -m stages.race.scaling PROCESSES BATCH...   (as 1,2 64 128; models/base and data/processed/train.jsonl lie there)
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from stages import UserError, params, run
from stages.benchmark.measure import run_apart
from stages.model.identity import require_whole_base
from stages.paths import BASE_MODEL, METRICS
from stages.race import arguments, whole_number
from stages.report import read_json, write_json

TOLERANCE = 0.02  # of the loss: bfloat16 sums in another order


def report(blocks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The blocks by number of processes, each rate with its efficiency: over the first block's, a process. Raises
    UserError where their losses on the same texts differ, before training: then they don't have the same model. It says
    nothing of the steps that follow; tests/test_processes.py compares those."""
    first = next(iter(blocks.values()))
    whole: dict[str, Any] = {}
    for number, block in blocks.items():
        whole[number] = {}
        for name in (name for name in block if name == "evaluate" or name.startswith("train ")):
            if abs(block[name].get("loss", 0) - first[name].get("loss", 0)) > TOLERANCE:
                raise UserError(f"{name}: the losses on the same batch differ: {first[name]}, {block[name]}")
            speedup = block[name]["samples_per_second"] / first[name]["samples_per_second"]
            whole[number][name] = block[name] | {"efficiency": speedup * first["processes"] / block["processes"]}
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
            run_apart("stages.race.rates", str(out), *batches)
            blocks[number] = read_json(out)
            write_json(METRICS / "scaling.json", report(blocks) | facts)


if __name__ == "__main__":
    run(main)
