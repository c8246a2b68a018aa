"""Measures training and scoring by 1, 2, … processes: texts per second, and the efficiency of each number of processes.

python -m benchmarks.scaling PROCESSES BATCH...   (needs models/base and data/processed/train.jsonl)

PROCESSES is a list such as 1,2. Each process has a GPU; without GPUs they share the CPU. Method and profile are those
of params.yaml, and texts come in random order. Windows begin when all is loaded, compiled and captured.
Writes results/scaling.json.
"""

import argparse
import dataclasses
import gc
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.common import RESULTS, command_parser, median_rate, positive_int
from benchmarks.recipes.ours import ours
from benchmarks.recipes.setting import Setting
from stages import params
from stages.artifacts import read_json, write_json
from stages.benchmark.processes import run_module
from stages.command import run
from stages.distributed import world_size
from stages.errors import UserError
from stages.model.device import environment, peak_memory_bytes, pick_device, reset_peak_memory, synchronize
from stages.model.fsdp import shard_layers
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import attach_adapter, merge_unquantized
from stages.model.provenance import require_whole_base
from stages.model.scoring import label_scores
from stages.params import Params
from stages.paths import BASE_MODEL, PROCESSED
from stages.text.example import Example, read_examples
from stages.text.prompt import Prompt, build_prompt
from stages.train.dataset import training_rows

WARM_UP = 4096  # texts before the first window, in which shapes are captured, and at least WARM_UP_STEPS
WARM_UP_STEPS = 32
WINDOWS, WINDOW = 5, 20  # number of windows, and steps of each
TOLERANCE = 0.01  # bfloat16 sums in another order; one GPU and two differed by .002
MEASURE = "--measure"


class StepWindows(TrainerCallback):
    """Times windows of steps. They are counted in steps, so that all processes begin and end them together.

    loss: the first one logged, for which gradients were added up over all processes.
    """

    def __init__(self, device: torch.device, batch: int):
        self.device = device
        self.warm_up = max(WARM_UP_STEPS, WARM_UP // batch)
        self.edges: list[float] = []
        self.loss: float | None = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.loss is None:
            self.loss = logs["loss"]

    def on_step_end(self, args, state, control, **kwargs):
        steps = state.global_step - self.warm_up
        if steps >= 0 and steps % WINDOW == 0:
            synchronize(self.device)
            self.edges.append(time.perf_counter())
        if len(self.edges) == WINDOWS + 1:
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False


def training_rate(chosen: Params, rows: list[dict[str, Any]], prompt: Prompt, batch: int) -> dict[str, Any]:
    """Texts per second that all processes together train on.

    Args:
        chosen: the settings of params.yaml, whose method and profile apply.
        rows: input ids and labels of the training texts.
        prompt: the prompt that the rows were made with.
        batch: texts in an optimizer step, over all processes.

    Raises:
        UserError: there are fewer rows than `batch`.
    """
    if len(rows) < batch:
        raise UserError(f"BATCH: found {batch}, and {len(rows)} texts to train on; expected no more than these")
    rows = rows[: len(rows) // batch * batch]  # so that each step has as many
    device = pick_device()
    watch = StepWindows(device, batch)
    with tempfile.TemporaryDirectory() as folder:
        recipe = ours(chosen.method_name, profile=chosen.train.profile)
        _, train = recipe(Setting(chosen, rows, prompt, batch, folder, watch))
        reset_peak_memory(device)
        train()
    peak = {"peak_memory_bytes": peak_memory_bytes(device)}  # of this process
    return window_rates(watch.edges, WINDOW * batch) | {"compared": watch.loss} | peak


def scoring_rate(chosen: Params, texts: list[str], prompt: Prompt) -> dict[str, Any]:
    """Texts per second that are tokenized and scored, after one pass to warm up."""
    model = attach_adapter(load_base(chosen.method), chosen.train).eval()
    merge_unquantized(shard_layers(model, chosen.method))
    edges = []
    for _ in range(WINDOWS + 1):
        scores = label_scores(model, prompt, texts, chosen.evaluate.max_tokens_per_batch, "scaling")
        edges.append(time.perf_counter())
    return window_rates(edges, len(texts)) | {"compared": float(scores.log_odds.mean())}


def window_rates(edges: list[float], number: int) -> dict[str, float]:
    """Rates of the windows between `edges`, in seconds, with `number` texts in each."""
    return median_rate([number / (end - start) for start, end in itertools.pairwise(edges)])


def measure_rates(chosen: Params, examples: list[Example], batches: list[int]) -> dict[str, Any]:
    """The rates of this number of processes: training by batch, and scoring."""
    device = pick_device()
    prompt = build_prompt(load_tokenizer(), **dataclasses.asdict(chosen.prompt))
    rows, _ = training_rows(examples, prompt, "completion")
    blocks: dict[str, Any] = {}
    for batch in batches:
        blocks[f"train {batch}"] = training_rate(chosen, rows, prompt, batch)
        gc.collect()  # the trainer, which holds cycles
        if device.type == "cuda":
            torch.cuda.empty_cache()
    blocks["evaluate"] = scoring_rate(chosen, [example.input for example in examples], prompt)
    return {"rates": blocks, "processes": world_size(), "environment": environment(device)}


def with_efficiency(blocks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Adds to each rate its efficiency: the rate per process over the first block's rate per process.

    Raises UserError if the numbers of processes computed different results: in training the loss of the first steps,
    in scoring the mean log-odds.
    """
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


def process_counts(text: str) -> list[int]:
    """At least two numbers of processes with commas between them, as an argparse type."""
    counts = [positive_int(number) for number in text.split(",")]
    if len(counts) < 2:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected at least two numbers, with commas, as 1,2")
    return counts


def main() -> None:
    parser = command_parser()
    parser.add_argument("processes", metavar="PROCESSES", type=process_counts, help="numbers of processes, as 1,2")
    parser.add_argument("batches", metavar="BATCH", type=positive_int, nargs="+", help="texts in a training step")
    parser.add_argument(MEASURE, metavar="OUT", type=Path, help="measure NPROC processes alone; the command's own use")
    options = parser.parse_args()
    chosen = params.load()
    if options.measure:
        block = measure_rates(chosen, read_examples(PROCESSED / "train.jsonl"), options.batches)
        write_json(options.measure, block)
        return
    require_whole_base(BASE_MODEL)
    blocks = {}
    facts = {"method": chosen.method_name, "profile": chosen.train.profile}
    with tempfile.TemporaryDirectory() as folder:
        for number in map(str, options.processes):
            print(f"scaling: {number} process(es)", flush=True)
            out = Path(folder) / f"{number}.json"
            os.environ["NPROC"] = number
            run_module("benchmarks.scaling", *sys.argv[1:], MEASURE, str(out))
            blocks[number] = read_json(out)
            write_json(RESULTS / "scaling.json", with_efficiency(blocks) | facts)


if __name__ == "__main__":
    run(main, distributed=MEASURE in sys.argv)
