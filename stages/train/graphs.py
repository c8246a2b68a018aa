"""Forward and backward pass as one CUDA graph a shape: the GPU is told once what to do, and then only to do it again.

On a GPU a step of small batches is bound by launching its thousands of kernels, not by their arithmetic.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from stages.model.answer import pinned


class CapturedPasses:
    """Calls `loss_of(inputs).backward()` by replaying graphs; gradients add up in the parameters' .grad.

    All graphs share one pool of memory, since only one of them runs at a time.
    """

    def __init__(self, loss_of: Callable[[dict[str, Any]], torch.Tensor], parameters: Iterable[torch.nn.Parameter]):
        self.loss_of = loss_of
        self.parameters = list(parameters)
        self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, dict[str, Any], torch.Tensor]] = {}
        self.stream = torch.cuda.Stream()  # one for all: the pool's memory is reused within a stream only
        self.pool = torch.cuda.MemPool()
        self.largest = 0  # numbers in the largest inputs so far

    def __call__(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The loss. inputs: tensors on any device, and numbers, which belong to the shape."""
        self.take_over_gradients()
        key = tuple((name, tuple(v.shape) if isinstance(v, torch.Tensor) else v) for name, v in inputs.items())
        if key not in self.graphs:
            self.graphs[key] = self.capture(inputs)
        graph, static, loss = self.graphs[key]
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor):
                static[name].copy_(pinned(value, static[name].device), non_blocking=True)
        graph.replay()
        return loss.clone()

    def take_over_gradients(self) -> None:
        """Graphs write to gradients at fixed addresses; whoever emptied a .grad meant zero."""
        pairs = zip(self.parameters, self.gradients, strict=True)
        strange = [(parameter, gradient) for parameter, gradient in pairs if parameter.grad is not gradient]
        empty = [gradient for parameter, gradient in strange if parameter.grad is None]
        if empty:
            torch._foreach_zero_(empty)
        for parameter, gradient in strange:
            if parameter.grad is not None:
                gradient.copy_(parameter.grad)
            parameter.grad = gradient

    def forget(self) -> None:
        """Gives up all graphs and their memory, as after one that did not fit."""
        torch.cuda.synchronize()
        self.graphs, self.pool = {}, torch.cuda.MemPool()
        torch.cuda.empty_cache()

    def capture(self, inputs: dict[str, Any]) -> tuple[torch.cuda.CUDAGraph, dict[str, Any], torch.Tensor]:
        size = sum(value.numel() for value in inputs.values() if isinstance(value, torch.Tensor))
        if size > self.largest:  # anew: in the memory of a larger graph there is room for smaller ones, not vice versa
            self.forget()
            self.largest = size
        device = self.parameters[0].device
        static = {
            name: value.to(device, copy=True) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }
        before = [gradient.clone() for gradient in self.gradients]
        self.stream.wait_stream(torch.cuda.current_stream())
        # A pass to warm up, in which libraries set up their workspaces; in the pool, so that its memory serves again.
        with torch.cuda.use_mem_pool(self.pool), torch.cuda.stream(self.stream):
            self.loss_of(static).backward()
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool.id, stream=self.stream):
            loss = self.loss_of(static)
            loss.backward()
            loss = loss.detach()
        torch._foreach_copy_(self.gradients, before)
        return graph, static, loss


def compile_layers(model: torch.nn.Module) -> None:
    """Compiles the decoder layer once for all layers and lengths: its element-wise work becomes a few kernels."""
    names = set(getattr(model, "_no_split_modules", None) or [])
    for module in model.modules():
        if type(module).__name__ in names:
            module.compile(dynamic=True)
