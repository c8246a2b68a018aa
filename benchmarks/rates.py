"""How many texts a second a number of processes trains on and scores, once all is loaded, compiled and captured: with
the method and train.profile of params.yaml, texts in random order.

NPROC=N python -m benchmarks.rates OUT BATCH...   (the measurement of scaling calls it)
"""

import dataclasses
import gc
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks import arguments, median_rate, whole_number
from benchmarks.recipe import ours
from stages import params
from stages.artifacts import write_json
from stages.command import run
from stages.distributed import world_size
from stages.errors import UserError
from stages.model.device import environment, peak_memory_bytes, pick_device, reset_peak_memory, synchronize
from stages.model.fsdp import shard_layers
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import attach_adapter, merge_unquantized
from stages.model.scoring import label_scores
from stages.params import Params
from stages.paths import PROCESSED
from stages.text.example import Example, read_examples
from stages.text.prompt import Prompt, build_prompt
from stages.train.dataset import training_rows

WARM_UP = 128  # steps before the first window, in which shapes are captured
WINDOWS, WINDOW = 5, 20  # how many, and the steps of one


class Windows(TrainerCallback):
    """Takes the time of windows of steps. Counted in steps, so that all processes begin and end together. loss: of the
    first steps, as logged, for which gradients were added up."""

    def __init__(self, device: torch.device):
        self.device = device
        self.edges: list[float] = []
        self.loss: float | None = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.loss is None:
            self.loss = logs["loss"]

    def on_step_end(self, args, state, control, **kwargs):
        steps = state.global_step - WARM_UP
        if steps >= 0 and steps % WINDOW == 0:
            synchronize(self.device)
            self.edges.append(time.perf_counter())
        if len(self.edges) == WINDOWS + 1:
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False


def training(chosen: Params, rows: list[dict[str, Any]], prompt: Prompt, batch: int, device: torch.device) -> dict:
    """The rate at `batch` texts a step, all processes together. Raises UserError where there are fewer."""
    if len(rows) < batch:
        raise UserError(f"BATCH: found {batch}, and {len(rows)} texts to train on; expected no more than these")
    rows = rows[: len(rows) // batch * batch]  # so that each step has as many
    watch = Windows(device)
    with tempfile.TemporaryDirectory() as folder:
        recipe = ours(chosen.method_name, profile=chosen.train.profile)
        _, train = recipe(chosen, rows, prompt, batch, folder, watch)
        reset_peak_memory(device)
        train()
    peak = {"peak_memory_bytes": peak_memory_bytes(device)}  # of this process
    return rates(watch.edges, WINDOW * batch) | {"compared": watch.loss} | peak


def scoring(chosen: Params, texts: list[str], prompt: Prompt, device: torch.device) -> dict[str, Any]:
    """The rate of the one scorer on all texts, tokenizing included, after once to warm up."""
    model = attach_adapter(load_base(chosen.method), chosen.train).eval()
    merge_unquantized(shard_layers(model, chosen.method))
    edges = []
    for _ in range(WINDOWS + 1):
        scores = label_scores(model, prompt, texts, chosen.evaluate.max_tokens_per_batch, "rates")
        edges.append(time.perf_counter())
    return rates(edges, len(texts)) | {"compared": float(scores.log_odds.mean())}


def rates(edges: list[float], number: int) -> dict[str, float]:
    """Of windows between `edges` (seconds), with `number` texts each."""
    return median_rate([number / (end - start) for start, end in itertools.pairwise(edges)])


def measure(chosen: Params, examples: list[Example], batches: list[int]) -> dict[str, Any]:
    device = pick_device()
    prompt = build_prompt(load_tokenizer(), **dataclasses.asdict(chosen.prompt))
    rows, _ = training_rows(examples, prompt, "completion")
    blocks: dict[str, Any] = {}
    for batch in batches:
        blocks[f"train {batch}"] = training(chosen, rows, prompt, batch, device)
        gc.collect()  # the trainer, which holds cycles
        if device.type == "cuda":
            torch.cuda.empty_cache()
    blocks["evaluate"] = scoring(chosen, [example.input for example in examples], prompt, device)
    return {"rates": blocks, "processes": world_size(), "environment": environment(device)}


def main() -> None:
    out, *numbers = arguments("OUT BATCH")
    batches = [whole_number(number, "BATCH") for number in numbers]
    write_json(Path(out), measure(params.load(), read_examples(PROCESSED / "train.jsonl"), batches))


if __name__ == "__main__":
    run(main, distributed=True)
