"""Runs one recipe and collects its figures."""

import dataclasses
import random
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
from stages.model.device import environment, pick_device, reset_peak_memory
from stages.model.load import load_tokenizer
from stages.paths import BASE_MODEL, PROCESSED
from stages.plan.memory import layer_matrices
from stages.text.example import read_examples
from stages.text.prompt import Prompt, build_prompt
from stages.train.dataset import training_rows

RANDOM_ROWS = 256
# Dense bfloat16 FLOPs per second, from the makers' data sheets.
PEAK_FLOPS = {"NVIDIA H100 80GB HBM3": 989.4e12, "NVIDIA H200": 989.4e12}


def measure_recipe(name: str, batch: int, length: int | None = None) -> dict[str, Any]:
    """The recipe's block in results/race.json: {"unavailable": reason} if it fails.

    Args:
        name: of a recipe.
        batch: texts in a training step.
        length: tokens of each text with prompt and answer, all random; None for the texts of train.
    """
    chosen, device = params.load(), pick_device()
    options = dataclasses.asdict(chosen.prompt) | ({"max_length": length} if length else {})
    prompt = build_prompt(load_tokenizer(), **options)
    if length:
        rows = random_rows(prompt)
    else:
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
    long = {"tokens": length, "flops_per_second": rate * training_flops(len(rows[0]["input_ids"]))} if length else {}
    return {
        "batch": watch.batch,
        "loss": loss,
        **rates,
        "tokens_per_second": rate * tokens,
        "model_flop_utilization": model_flop_utilization(rate * (tokens - len(prompt.prefix)), name),
        "peak_allocated_bytes": watch.peak,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if device.type == "cuda" else None,
        "seconds_to_load": ready,
        "seconds_to_first_step": watch.first_step,
        "kernel_milliseconds": watch.kernels.found,
        "environment": environment(device),
        **long,
    }


def random_rows(prompt: Prompt) -> list[dict[str, Any]]:
    """RANDOM_ROWS rows of loss `completion` with texts of random tokens, as long as the prompt allows."""
    draw, words = random.Random(0), len(prompt.tokenizer)
    rows = []
    for number in range(RANDOM_ROWS):
        answer = prompt.answer(number % 2 == 0)
        text = [draw.randrange(words) for _ in range(prompt.room)]
        rows.append({"input_ids": prompt.encode(text, answer_prefix=False) + answer[:-1], "labels": answer})
    return rows


def training_flops(tokens: int) -> float:
    """FLOPs of a training step for one text of so many tokens: the decoder layers' products, and attention.

    Forward and to the inputs, 2 FLOPs each for a weight and token. Causal attention takes two products of 2 FLOPs for
    each pair of tokens and width of the heads, and four of them backward. The output head, computed for the answer
    alone, and what checkpointing computes twice don't count.
    """
    config = AutoConfig.from_pretrained(BASE_MODEL, trust_remote_code=False, local_files_only=True).get_text_config()
    weights = config.num_hidden_layers * sum(rows * columns for rows, columns in layer_matrices(config))
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    pairs = tokens * (tokens + 1) / 2
    return 4 * weights * tokens + 12 * pairs * config.num_attention_heads * size * config.num_hidden_layers


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
