"""Runs one recipe and collects its figures."""

import dataclasses
import statistics
import tempfile
import time
import traceback
from typing import Any

import torch
from transformers import AutoConfig

from benchmarks.common import median_rate
from benchmarks.recipes import FORWARD_ONLY, load_recipe
from benchmarks.recipes.setting import Setting, Stopwatch
from stages import params
from stages.errors import UserError
from stages.model.device import environment, peak_memory_bytes, pick_device, reset_peak_memory
from stages.model.load import load_tokenizer
from stages.paths import BASE_MODEL, PROCESSED
from stages.plan.memory import layer_matrices
from stages.text.example import read_examples
from stages.text.prompt import build_prompt
from stages.train.dataset import training_rows

# Dense bfloat16 FLOPs per second, from the makers' data sheets.
PEAK_FLOPS = {"NVIDIA H100 80GB HBM3": 989.4e12, "NVIDIA H200": 989.4e12}


def measure_recipe(name: str, batch: int) -> dict[str, Any]:
    """The recipe's block in results/race.json: {"unavailable": reason} if it fails."""
    chosen, device = params.load(), pick_device()
    prompt = build_prompt(load_tokenizer(), **dataclasses.asdict(chosen.prompt))
    rows, _ = training_rows(read_examples(PROCESSED / "train.jsonl"), prompt, "completion")
    watch = Stopwatch(device, batch)
    reset_peak_memory(device)
    try:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            loss, work = load_recipe(name)(Setting(chosen, rows, prompt, batch, folder, watch))
            ready = time.perf_counter() - started
            work()
    except Exception as error:  # peers raise what they like; the table shows it
        return {"unavailable": reason(error)}
    rates = median_rate(watch.rates)
    rate = rates["samples_per_second"]
    tokens = statistics.mean(len(row["input_ids"]) for row in rows)
    return {
        "batch": watch.batch,
        "loss": loss,
        **rates,
        "tokens_per_second": rate * tokens,
        "model_flop_utilization": model_flop_utilization(rate * (tokens - len(prompt.prefix)), name),
        "peak_allocated_bytes": peak_memory_bytes(device),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if device.type == "cuda" else None,
        "seconds_to_load": ready,
        "seconds_to_first_step": watch.first_step,
        "environment": environment(device),
    }


def reason(error: Exception) -> str:
    """The first line of an error. Prints the traceback of one that is neither the user's nor lack of memory."""
    line = next(iter(str(error).splitlines()), "")
    if isinstance(error, UserError | torch.OutOfMemoryError):
        return line
    traceback.print_exception(error)
    return f"{type(error).__name__}: {line}"


def model_flop_utilization(tokens_per_second: float, name: str) -> float | None:
    """MFU: the share of the GPU's peak rate that the decoder layers' matrix products take.

    A forward pass takes 2 FLOPs per weight and token. A backward pass takes as many again, to the inputs only, since
    frozen weights get no gradient. `tokens_per_second` leaves out the shared prompt prefix. None for a GPU whose peak
    rate is not in PEAK_FLOPS.
    """
    peak = PEAK_FLOPS.get(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    if peak is None:
        return None
    config = AutoConfig.from_pretrained(BASE_MODEL, trust_remote_code=False, local_files_only=True)
    passes = 1 if name in FORWARD_ONLY else 2
    weights = config.num_hidden_layers * sum(rows * columns for rows, columns in layer_matrices(config))
    return 2 * passes * weights * tokens_per_second / peak
