"""Forward and backward pass as one CUDA graph a shape: the GPU is told once what to do, and then only to do it again.

On a GPU a step of small batches is bound by launching its thousands of kernels, not by their arithmetic.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from stages.model.forward import pinned
from stages.model.load import decoder_layers


class CapturedPasses:
    """Calls `loss_of(inputs).backward()`; gradients add up in the parameters' .grad.

    A shape's first pass is run as it is, and libraries set up what they need for it; its second is captured; from then
    on the graph is replayed. All of it takes its memory from one pool, since only one pass runs at a time.
    """

    def __init__(self, loss_of: Callable[[dict[str, Any]], torch.Tensor], parameters: Iterable[torch.nn.Parameter]):
        self.loss_of = loss_of
        self.parameters = list(parameters)
        self.device = self.parameters[0].device
        self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.stream = torch.cuda.Stream()  # one for all: the pool's memory is reused within a stream only
        self.forget()

    def __call__(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The loss. inputs: tensors on any device, and numbers, which belong to the shape."""
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
        """Captures the largest inputs first: in the memory of their graph there is room for all others, not vice versa.
        Gradients and random states stay as they are."""
        self.take_over_gradients()
        before = [gradient.clone() for gradient in self.gradients]
        with torch.random.fork_rng([self.device]):
            for _ in range(2):
                self(inputs)
        torch._foreach_copy_(self.gradients, before)

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
        self.inputs: dict[tuple, dict[str, Any]] = {}  # of each shape, at fixed addresses
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
        """Capturing computes nothing yet: gradients stay as they are."""
        graph = torch.cuda.CUDAGraph()
        # NCCL's own thread may go on meanwhile, asking how far its sums are.
        with torch.cuda.graph(graph, pool=self.pool.id, stream=self.stream, capture_error_mode="thread_local"):
            loss = self.loss_of(inputs)
            loss.backward()
            loss = loss.detach()
        return graph, loss


def compile_layers(model: torch.nn.Module, compiled: bool) -> None:
    """Compiles the decoder layer once for all layers and lengths, so that its element-wise work becomes a few kernels;
    or, with `compiled` false, goes back to it as it was written."""
    for layer in decoder_layers(model):
        if compiled:
            layer.compile(dynamic=True)
        else:
            layer._compiled_call_impl = None
