"""A pass as one CUDA graph for each shape: captured once, then replayed with a single launch.

With small batches, a GPU spends a pass on launching thousands of kernels, not on their arithmetic.
"""

import gc
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        # Pools that others left in reference cycles. Python would free them at any time, and torch ends the process
        # where that happens while a pool is in use.
        gc.collect()
        self.pool = torch.cuda.MemPool()
        torch.cuda.empty_cache()

    def run(self, inputs: dict[str, Any]) -> torch.Tensor:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.use_mem_pool(self.pool), torch.cuda.stream(self.stream):
            result = self.compute(inputs)
        torch.cuda.current_stream().wait_stream(self.stream)
        return result.clone()

    def capture(self, inputs: dict[str, Any]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Capturing computes nothing."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: NCCL's own thread may query its events meanwhile.
        pool: Any = self.pool.id
        with torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"):
            result = self.compute(inputs)
        return graph, result


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
