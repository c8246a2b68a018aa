"""Compares the whole train stage with a stock Trainer that takes as many steps on as many texts.

python -m benchmarks.train_stage   (in a fresh clone after `dvc repro prepare`, with nothing else running)

The stage's figures include its evaluations and checkpoints; the stock Trainer has none. Writes results/stage.json.
"""

import dataclasses
import tempfile
import time
from pathlib import Path

from transformers import TrainerCallback

from benchmarks.common import RESULTS, command_parser, positive_int
from benchmarks.recipes.setting import Setting
from benchmarks.recipes.stock import stock
from stages import params
from stages.artifacts import read_json, write_json
from stages.benchmark.processes import run_module
from stages.command import run
from stages.errors import UserError
from stages.model.device import environment, peak_memory_bytes, pick_device, reset_peak_memory
from stages.model.load import load_tokenizer
from stages.model.provenance import require_whole_base
from stages.paths import BASE_MODEL, PROCESSED, RUNS, TRAIN_FIGURES
from stages.text.example import read_examples
from stages.text.prompt import build_prompt
from stages.train.dataset import training_rows


def train_stock_alone(steps: int) -> dict[str, int]:
    """Takes `steps` steps of the train stage's batch, texts and loss with a stock Trainer on NF4; returns its peak."""
    chosen, device = params.load(), pick_device()
    prompt = build_prompt(load_tokenizer(), **dataclasses.asdict(chosen.prompt))
    rows, _ = training_rows(read_examples(PROCESSED / "train.jsonl"), prompt, chosen.train.loss)
    reset_peak_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        batch, strategy = chosen.train.per_device_train_batch_size, chosen.train.train_sampling_strategy
        setting = Setting(chosen, rows, prompt, batch, folder, TrainerCallback())
        _, train = stock(setting, max_steps=steps, train_sampling_strategy=strategy)
        train()
    return {"peak_memory_bytes": peak_memory_bytes(device)}


def compare_with_stock() -> None:
    """Runs the train stage, then the stock Trainer, each in a new process, and writes both."""
    require_whole_base(BASE_MODEL)
    if (RUNS / "train").exists():
        raise UserError(f"{RUNS / 'train'} holds a training; expected a fresh clone after `dvc repro prepare`")
    start = time.perf_counter()
    run_module("stages.train")
    middle = time.perf_counter()
    ours = read_json(TRAIN_FIGURES)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "stock.json"
        run_module("benchmarks.train_stage", "--stock-steps", str(ours["facts"]["steps"]), "--out", str(out))
        end = time.perf_counter()
        compared = {
            "steps": ours["facts"]["steps"],
            "stage": {"seconds": middle - start, "peak_memory_bytes": ours["measured"]["peak_memory_bytes"]},
            "stock": {"seconds": end - middle, **read_json(out)},
            "stock_over_stage": (end - middle) / (middle - start),
            "environment": environment(pick_device()),
        }
    write_json(RESULTS / "stage.json", compared)


def main() -> None:
    parser = command_parser()
    own_use = parser.add_argument_group("the command's own use")
    own_use.add_argument("--stock-steps", metavar="STEPS", type=positive_int, help="take these steps with stock alone")
    own_use.add_argument("--out", metavar="OUT", type=Path, help="the JSON file for their peak")
    options = parser.parse_args()
    if options.stock_steps and options.out:
        write_json(options.out, train_stock_alone(options.stock_steps))
    else:
        compare_with_stock()


if __name__ == "__main__":
    run(main)
