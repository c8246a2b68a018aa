"""The whole train stage, its evaluations and checkpoints included, beside a stock Trainer that takes as many steps on
as many texts and does nothing else.

python -m benchmarks.train_stage   (in a clone of its own, after `dvc repro prepare`, with nothing else running)
"""

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

from transformers import TrainerCallback

from benchmarks import RESULTS
from benchmarks.recipe import stock
from stages import params
from stages.artifacts import read_json, write_json
from stages.benchmark.measure import run_apart
from stages.command import run
from stages.errors import UserError
from stages.model.device import environment, peak_memory_bytes, pick_device, reset_peak_memory
from stages.model.load import load_tokenizer
from stages.model.provenance import require_whole_base
from stages.paths import BASE_MODEL, METRICS, PROCESSED, RUNS
from stages.text.example import read_examples
from stages.text.prompt import build_prompt
from stages.train.dataset import training_rows


def stock_training(steps: int, out: Path) -> None:
    """Steps of the size, the texts and the loss of the train stage, by a stock Trainer on the method article's NF4."""
    chosen, device = params.load(), pick_device()
    prompt = build_prompt(load_tokenizer(), **dataclasses.asdict(chosen.prompt))
    rows, _ = training_rows(read_examples(PROCESSED / "train.jsonl"), prompt, chosen.train.loss)
    reset_peak_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        batch, strategy = chosen.train.per_device_train_batch_size, chosen.train.train_sampling_strategy
        options = {"max_steps": steps, "train_sampling_strategy": strategy}
        _, train = stock(chosen, rows, prompt, batch, folder, TrainerCallback(), **options)
        train()
    write_json(out, {"peak_memory_bytes": peak_memory_bytes(device)})


def main() -> None:
    require_whole_base(BASE_MODEL)
    if (RUNS / "train").exists():
        raise UserError(f"{RUNS / 'train'} holds a training; expected a fresh clone after `dvc repro prepare`")
    start = time.perf_counter()
    run_apart("stages.train")
    middle = time.perf_counter()
    ours = read_json(METRICS / "train.json")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "stock.json"
        run_apart(__spec__.name, str(ours["facts"]["steps"]), str(out))
        end = time.perf_counter()
        report = {
            "steps": ours["facts"]["steps"],
            "stage": {"seconds": middle - start, "peak_memory_bytes": ours["measured"]["peak_memory_bytes"]},
            "stock": {"seconds": end - middle, **read_json(out)},
            "stock_over_stage": (end - middle) / (middle - start),
            "environment": environment(pick_device()),
        }
    write_json(RESULTS / "stage.json", report)


if __name__ == "__main__":
    run(main if len(sys.argv) != 3 else lambda: stock_training(int(sys.argv[1]), Path(sys.argv[2])))
