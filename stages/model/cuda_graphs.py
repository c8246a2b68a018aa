"""A pass as one CUDA graph for each shape: captured once, then replayed with a single launch.

With small batches, a GPU spends a pass on launching thousands of kernels, not on their arithmetic.
"""

import contextlib
import gc
import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
import torch._functorch.config
from torch.utils._triton import has_triton

from stages.model.forward import pinned
from stages.model.layout import underlying
from stages.model.load import decoder_layers


class CapturedPasses:
    """Calls `compute(inputs)`.

    The first pass of a shape runs without a graph, so that libraries set up what they need. The second is captured.
    Later ones replay the graph. All graphs share one memory pool, since only one pass runs at a time.

    Args:
        compute: from inputs on the GPU to one tensor, in operations that a graph can hold.
        device: the GPU.
    """

    def __init__(self, compute: Callable[[dict[str, Any]], torch.Tensor], device: torch.device):
        self.compute, self.device = compute, device
        self.stream = torch.cuda.Stream(device)  # one for all shapes: the pool reuses memory only within a stream
        self.forget()

    def __call__(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Returns a copy of the result. inputs: tensors on any device, and numbers, which are part of the shape."""
        key = tuple((name, tuple(v.shape) if isinstance(v, torch.Tensor) else v) for name, v in inputs.items())
        if key not in self.inputs:
            self.inputs[key] = {
                name: value.to(self.device, copy=True) if isinstance(value, torch.Tensor) else value
                for name, value in inputs.items()
            }
            return self.run(self.inputs[key])
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor):
                self.inputs[key][name].copy_(pinned(value, self.device), non_blocking=True)
        if key not in self.graphs:
            self.graphs[key] = self.capture(self.inputs[key])
        graph, result = self.graphs[key]
        graph.replay()
        return result.clone()

    def forget(self) -> None:
        """Frees all graphs and their memory, as after a pass that did not fit."""
        torch.cuda.synchronize()
        self.inputs: dict[tuple, dict[str, Any]] = {}  # by shape, at fixed addresses
        self.graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        gc.collect()  # pools that others left in reference cycles
        self.pool = torch.cuda.MemPool()
        torch.cuda.empty_cache()

    def run(self, inputs: dict[str, Any]) -> torch.Tensor:
        torch.cuda.empty_cache()  # within the pool, torch takes nothing of what it has cached elsewhere
        self.stream.wait_stream(torch.cuda.current_stream())
        with no_collection(), torch.cuda.use_mem_pool(self.pool), torch.cuda.stream(self.stream):
            result = self.compute(inputs)
        torch.cuda.current_stream().wait_stream(self.stream)
        return result.clone()

    def capture(self, inputs: dict[str, Any]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Capturing computes nothing."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        pool: Any = self.pool.id
        try:
            # thread_local: NCCL's own thread may query its events meanwhile.
            with (
                no_collection(),
                torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"),
            ):
                result = self.compute(inputs)
        finally:
            torch.cuda.set_stream(stream)  # torch leaves its own one where the end of a capture fails
        return graph, result


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Stops Python's garbage collector: torch ends the process where a memory pool is freed while another is in use."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def waits_for_gpu(model: torch.nn.Module) -> str | None:
    """What makes a pass through the model wait for the GPU, which a CUDA graph can't hold; None if nothing does.

    bitsandbytes looks for outliers in each input of an 8-bit layer (int8_vectorwise_quant). torch's grouped products
    read the experts' numbers of tokens, but in bfloat16 on compute capability 9 and 10 (_grouped_mm_fallback).
    """
    base = underlying(model)
    if any(isinstance(module, bnb.nn.Linear8bitLt) for module in base.modules()):
        return "its weights have 8 bits"
    others = (module for module in base.modules() if not isinstance(module, torch.nn.modules.conv._ConvNd))
    experts = [p for module in others for p in module.parameters(recurse=False) if p.ndim == 3]
    grouped = all(
        p.dtype == torch.bfloat16 and torch.cuda.get_device_capability(p.device)[0] in (9, 10) for p in experts
    )
    return None if grouped else "its experts need bfloat16 and compute capability 9 or 10"


def can_compile() -> bool:
    """Whether torch's compiler for GPUs finds what it needs: Triton for this GPU, a C compiler, and Python's header."""
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]  # as Triton looks for them
    folders = {sysconfig.get_path("include", scheme) for scheme in (sysconfig.get_default_scheme(), "posix_prefix")}
    header = any(Path(folder, "Python.h").exists() for folder in folders)
    return has_triton() and header and any(map(shutil.which, compilers))


def compile_layers(model: torch.nn.Module, compiled: bool, checkpointing: bool = False) -> None:
    """Compiles the decoder layer once for all layers and lengths, which fuses its element-wise work into a few kernels;
    with `compiled` false, undoes that.

    checkpointing: whether the layers keep no activations for the backward pass, and compute them again there.
    """
    budget = 0.0 if compiled and checkpointing else 1.0
    if torch._functorch.config.activation_memory_budget != budget:
        torch.compiler.reset()  # forgets what was compiled for the other one
        torch._functorch.config.activation_memory_budget = budget
    for layer in decoder_layers(underlying(model)):
        if compiled:
            layer.compile(dynamic=True)
        else:
            layer._compiled_call_impl = None
