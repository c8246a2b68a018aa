"""Where the memory of a training step goes, by method, batch and form of checkpointing, on a GPU; beside the formula.

python -m benchmarks.step_memory SHAPE   (models/base: random weights of that shape, by benchmarks.random_model)
"""

import dataclasses
import gc
import time
from typing import Any

import torch
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from benchmarks import RESULTS, arguments, require_gpu_and_base
from stages import params
from stages.artifacts import read_json, write_json
from stages.command import run
from stages.distributed import local_shard
from stages.model.device import environment, pick_device
from stages.model.forward import completion_logits
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.params import Method, Params, Train
from stages.plan.memory import step_memory
from stages.plan.shapes import config_of

METHODS = ("lora", "lora-int8", "qlora", "qlora-dq")
BATCHES = (1, 4, 16, 32)
RANK = 16  # of the adapters
TOKENS, SHARED = 256, 22  # of a text with its prompt, and of the prompt's constant start


def measure_method(method: str) -> dict[str, dict[str, Any]]:
    """One block a batch and form of checkpointing, by names like qlora-16-checkpointed."""
    chosen = params.load()
    train = adapter_params(chosen)
    gc.collect()  # of an earlier method's model, which holds cycles
    torch.cuda.empty_cache()
    empty = torch.cuda.memory_allocated()
    base = load_base(chosen.methods[method])
    torch.cuda.empty_cache()
    weights = torch.cuda.memory_allocated() - empty
    model = attach_adapter(base, train)
    adapters = torch.cuda.memory_allocated() - empty - weights
    blocks = {}
    for checkpointing in (False, True):
        if checkpointing:
            checkpoint_activations(base)
        for batch in BATCHES:
            block = {"method": method, "checkpointing": checkpointing, "batch": batch, "weights": weights}
            try:
                block |= {"adapters": adapters} | measure_step(model, batch)
            except torch.OutOfMemoryError as error:
                block["unavailable"] = str(error).splitlines()[0]
            model.zero_grad()
            torch.cuda.empty_cache()
            blocks[f"{method}-{batch}" + ("-checkpointed" if checkpointing else "")] = block
    return blocks


def adapter_params(chosen: Params) -> Train:
    return dataclasses.replace(chosen.train, r=RANK, lora_alpha=32, lora_dropout=0.0)


def checkpoint_activations(model: PreTrainedModel) -> None:
    model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})


def measure_step(model: torch.nn.Module, batch: int, tokens: int = TOKENS) -> dict[str, float]:
    """Bytes of the parts of a step, the third: by then the optimizer's states exist; its seconds, and its loss. Of
    several processes each takes its share of the batch. Nothing is learned, so that losses can be compared."""
    model.train()
    device = pick_device()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 100_000, (batch, tokens), generator=generator)
    ids[:, :SHARED] = ids[:1, :SHARED].clone()
    ids = local_shard(ids)
    rows = {"input_ids": ids, "positions": torch.full((len(ids), 1), tokens - 1)}
    labels = torch.full((len(ids),), 7, device=device)
    at_head: list[int] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda *_: at_head.append(torch.cuda.memory_allocated())
    )
    try:
        for _ in range(3):
            torch.cuda.synchronize()
            start = time.perf_counter()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            loss = functional.cross_entropy(completion_logits(model, rows, SHARED)[:, 0].float(), labels)
            after, forward_peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            loss.backward()
            backward_peak = torch.cuda.max_memory_allocated()
            gradients = sum(parameter.grad.nbytes for parameter in trained)
            optimizer.step()
            optimizer.zero_grad()
            value = loss.item()
            del loss
            torch.cuda.synchronize()
            seconds = time.perf_counter() - start
    finally:
        hook.remove()
    states = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v))
    return {
        "loss": value,
        "seconds": seconds,
        "gradients": gradients,
        "optimizer": states,
        "activations": at_head[-1] - before,
        "logits": after - at_head[-1],
        "before": before,
        "forward_peak": forward_peak,
        "backward_peak": backward_peak,
        "peak": max(forward_peak, backward_peak),
    }


def compared(blocks: dict[str, dict[str, Any]], config: PretrainedConfig, methods: dict[str, Method]) -> None:
    """Adds to each block the peak that the formula predicts, and its error as a share of the measured one."""
    for block in blocks.values():
        method = methods[block["method"]]
        predicted = step_memory(config, method, RANK, block["batch"], TOKENS, block["checkpointing"], SHARED)
        block["predicted_peak"] = predicted.peak
        if "peak" in block:
            block["prediction_error"] = predicted.peak / block["peak"] - 1


def main() -> None:
    (shape,) = arguments("SHAPE", most=1)
    config = config_of(shape)
    require_gpu_and_base()
    path = RESULTS / "memory_map.json"
    known = read_json(path) if path.exists() else {}
    blocks: dict[str, Any] = {}
    for method in METHODS:
        print(f"memory: {shape}, {method}", flush=True)
        blocks |= measure_method(method)
        compared(blocks, config, params.load().methods)
        write_json(path, known | {shape: blocks, "environment": environment(pick_device())})


if __name__ == "__main__":
    run(main)
