"""Measures the loading and the forward pass of one method.

python -m stages.benchmark.measure METHOD FOLDER OUT   (the benchmark stage calls it, in a process of its own)
"""

import argparse
import gc
import mmap
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from stages import params
from stages.artifacts import write_json
from stages.benchmark.weights import drop_page_cache, file_bytes, quantization_error, weight_bytes
from stages.command import run
from stages.model.device import memory_bytes, peak_memory_bytes, pick_device, reset_peak_memory, synchronize
from stages.model.load import load_base
from stages.params import Benchmark, Method
from stages.paths import BASE_MODEL


def measure_loading(method: Method, folder: Path, settings: Benchmark) -> dict[str, Any]:
    """Loads the model cold once, runs forward passes, and loads it warm `settings.repeats` times.

    Returns {"facts": …, "measured": …}, or {"facts": {"unavailable": reason}} for a method that does not run on this
    device.
    """
    device = pick_device()
    if device.type == "cuda":
        torch.zeros(1, device=device)  # starting CUDA is no part of loading
    drop_page_cache(folder)
    before = memory_bytes(device)
    reset_peak_memory(device)
    try:
        cold, model = timed_load(method, folder, device)
        peak, loaded = peak_memory_bytes(device) - before, memory_bytes(device) - before
        forward = forward_seconds(model, settings, device)
    except (NotImplementedError, ImportError, torch.OutOfMemoryError) as error:
        return {"facts": {"unavailable": f"{type(error).__name__}: {error}"}}
    facts = {
        "weight_bytes": weight_bytes(model),
        "file_bytes": file_bytes(folder),
        "quantization_error": quantization_error(model, BASE_MODEL),
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    del model
    warm = warm_seconds(method, folder, settings.repeats, device)
    tokens = settings.batch_size * settings.sequence_length
    measured = {
        "load_seconds_cold": cold,
        "load_seconds_warm": statistics.median(warm),
        "load_seconds_warm_min": min(warm),
        "load_seconds_warm_max": max(warm),
        "peak_bytes": peak,
        "loaded_bytes": loaded,
        "forward_tokens_per_second": tokens / statistics.median(forward),
        "forward_tokens_per_second_min": tokens / max(forward),
        "forward_tokens_per_second_max": tokens / min(forward),
    }
    return {"facts": facts, "measured": measured}


def warm_seconds(method: Method, folder: Path, repeats: int, device: torch.device) -> list[float]:
    """Seconds of each of `repeats` loads of a folder that this process has loaded before.

    Args:
        method: how to quantize.
        folder: the model's folder.
        repeats: number of loads.
        device: where the model goes.
    """
    seconds = []
    for _ in range(repeats):
        gc.collect()
        taken, model = timed_load(method, folder, device)
        seconds.append(taken)
        del model
    return seconds


def timed_load(method: Method, folder: Path, device: torch.device) -> tuple[float, PreTrainedModel]:
    """Seconds of a load that reads every page of the weights, and the model. A mapped file is not read yet."""
    synchronize(device)
    start = time.perf_counter()
    model = load_base(method, folder)
    for tensor in model.state_dict().values():
        if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
            tensor.flatten().view(torch.uint8)[:: mmap.PAGESIZE].sum()
    synchronize(device)
    return time.perf_counter() - start, model


@torch.no_grad()
def forward_seconds(model: PreTrainedModel, settings: Benchmark, device: torch.device) -> list[float]:
    """Seconds of each of `repeats` passes over random tokens (batch_size, sequence_length), after one to warm up."""
    generator = torch.Generator().manual_seed(0)
    shape = (settings.batch_size, settings.sequence_length)
    input_ids = torch.randint(model.config.vocab_size, shape, generator=generator).to(device)
    seconds = []
    for _ in range(1 + settings.repeats):
        synchronize(device)
        start = time.perf_counter()
        model(input_ids=input_ids, logits_to_keep=1, use_cache=False)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser("python -m stages.benchmark.measure", description=__doc__.partition("\n")[0])
    parser.add_argument("method", metavar="METHOD", help="a method's name in params.yaml")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the model's folder")
    parser.add_argument("out", metavar="OUT", type=Path, help="the JSON file to write")
    options = parser.parse_args()
    chosen = params.load()
    write_json(options.out, measure_loading(chosen.methods[options.method], options.folder, chosen.benchmark))


if __name__ == "__main__":
    run(main)
