"""One method's loading and forward pass, measured in a fresh process.

python -m stages.benchmark.measure METHOD FOLDER OUT   (the benchmark stage calls it)
"""

import gc
import mmap
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from stages import params
from stages.artifacts import read_json, write_json
from stages.benchmark.weights import drop_page_cache, file_bytes, quantization_error, weight_bytes
from stages.command import run
from stages.errors import UserError
from stages.model.device import memory_bytes, peak_memory_bytes, pick_device, reset_peak_memory, synchronize
from stages.model.load import load_base
from stages.params import Benchmark, Method
from stages.paths import BASE_MODEL


def measure_apart(method: str, folder: Path) -> dict:
    """Measures in a new process, so that nothing of an earlier load counts. Returns {"facts": …, "measured": …}."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "block.json"
        run_apart(__name__, method, str(folder), str(out))
        return read_json(out)


def run_apart(module: str, *arguments: str) -> None:
    """Runs a module of this project in a new process. Raises UserError if it fails; its words stand above."""
    status = subprocess.run([sys.executable, "-m", module, *arguments]).returncode
    if status != 0:
        raise UserError(f"`python -m {module} {' '.join(arguments)}` ended with status {status}; its words stand above")


def measure(method: Method, folder: Path, settings: Benchmark) -> dict:
    """Loads cold once and warm `repeats` times, then runs forward passes.

    A method that bitsandbytes does not have on this device yields {"facts": {"unavailable": why}}.
    """
    device = pick_device()
    if device.type == "cuda":
        torch.zeros(1, device=device)  # the context's start is not part of loading
    drop_page_cache(folder)
    before = memory_bytes(device)
    reset_peak_memory(device)
    try:
        cold, model = timed(lambda: load_whole(method, folder), device)
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
    warm = []
    for _ in range(settings.repeats):
        gc.collect()
        seconds, again = timed(lambda: load_whole(method, folder), device)
        warm.append(seconds)
        del again
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


def load_whole(method: Method, folder: Path) -> PreTrainedModel:
    """Loads a model and reads every page of its weights: a file that is only mapped has not been read yet."""
    model = load_base(method, folder)
    for tensor in model.state_dict().values():
        if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
            tensor.flatten().view(torch.uint8)[:: mmap.PAGESIZE].sum()
    return model


def timed(load: Callable[[], PreTrainedModel], device: torch.device) -> tuple[float, PreTrainedModel]:
    synchronize(device)
    start = time.perf_counter()
    model = load()
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
    name, folder, out = sys.argv[1:]
    chosen = params.load()
    write_json(Path(out), measure(chosen.methods[name], Path(folder), chosen.benchmark))


if __name__ == "__main__":
    run(main)
