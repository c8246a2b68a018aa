"""Forward and backward pass as one CUDA graph for each shape: captured once, then replayed with a single launch.

With small batches, a GPU spends a step on launching thousands of kernels, not on their arithmetic.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from stages.model.forward import pinned
from stages.model.layout import underlying
from stages.model.load import decoder_layers


class CapturedPasses:
    """Calls `loss_of(inputs).backward()`; gradients add up in the parameters' .grad.

    The first pass of a shape runs without a graph, so that libraries set up what they need. The second is captured.
    Later ones replay the graph. All graphs share one memory pool, since only one pass runs at a time.

    Args:
        loss_of: a loss of one number, from inputs on the GPU, in operations that a graph can hold.
        parameters: those that are trained.
    """

    def __init__(self, loss_of: Callable[[dict[str, Any]], torch.Tensor], parameters: Iterable[torch.nn.Parameter]):
        self.loss_of = loss_of
        self.parameters = list(parameters)
        self.device = self.parameters[0].device
        self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.stream = torch.cuda.Stream()  # one for all shapes: the pool reuses memory only within a stream
        self.forget()

    def __call__(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Returns the loss. inputs: tensors on any device, and numbers, which are part of the shape."""
        self.take_over_gradients()
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
        graph, loss = self.graphs[key]
        graph.replay()
        return loss.clone()

    def reserve(self, inputs: dict[str, Any]) -> None:
        """Captures the largest inputs first: all others fit in the memory of their graph, not vice versa. Gradients and
        random states stay unchanged."""
        self.take_over_gradients()
        before = [gradient.clone() for gradient in self.gradients]
        with torch.random.fork_rng([self.device]):
            for _ in range(2):
                self(inputs)
        torch._foreach_copy_(self.gradients, before)

    def take_over_gradients(self) -> None:
        """Puts the gradients that graphs write to, at fixed addresses, into .grad. A .grad of None means zero."""
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
        """Frees all graphs and their memory, as after a pass that did not fit."""
        torch.cuda.synchronize()
        self.inputs: dict[tuple, dict[str, Any]] = {}  # by shape, at fixed addresses
        self.graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self.pool = torch.cuda.MemPool()
        torch.cuda.empty_cache()

    def run(self, inputs: dict[str, Any]) -> torch.Tensor:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.use_mem_pool(self.pool), torch.cuda.stream(self.stream):
            loss = self.loss_of(inputs)
            loss.backward()
        torch.cuda.current_stream().wait_stream(self.stream)
        return loss.detach().clone()

    def capture(self, inputs: dict[str, Any]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Capturing computes nothing: gradients stay unchanged."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: NCCL's own thread may query its events meanwhile.
        pool: Any = self.pool.id
        with torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"):
            loss = self.loss_of(inputs)
            loss.backward()
            loss = loss.detach()
        return graph, loss


def compile_layers(model: torch.nn.Module, compiled: bool) -> None:
    """Compiles the decoder layer once for all layers and lengths, which fuses its element-wise work into a few kernels;
    with `compiled` false, undoes that."""
    for layer in decoder_layers(underlying(model)):
        if compiled:
            layer.compile(dynamic=True)
        else:
            layer._compiled_call_impl = None
