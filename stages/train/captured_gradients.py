"""Forward and backward pass as one CUDA graph for each shape."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from stages.model.cuda_graphs import CapturedPasses


class CapturedGradients(CapturedPasses):
    """Passes that return a loss, and add its gradients up in the parameters' .grad.

    All gradients lie in one tensor, `flat`, so that the whole of them is zeroed, clipped and added up over processes by
    single kernels.

    Args:
        loss_of: a loss of one number, from inputs on the GPU, in operations that a graph can hold.
        parameters: those that are trained, all of one dtype.
    """

    def __init__(self, loss_of: Callable[[dict[str, Any]], torch.Tensor], parameters: Iterable[torch.nn.Parameter]):
        self.loss_of = loss_of
        self.parameters = list(parameters)
        sizes = [parameter.numel() for parameter in self.parameters]
        self.flat = self.parameters[0].new_zeros(sum(sizes))
        self.gradients = [
            part.view_as(parameter) for part, parameter in zip(self.flat.split(sizes), self.parameters, strict=True)
        ]
        super().__init__(self.loss_and_gradients, self.parameters[0].device)

    def __call__(self, inputs: dict[str, Any]) -> torch.Tensor:
        self.take_over_gradients()
        return super().__call__(inputs)

    def loss_and_gradients(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The loss. Gradients are added up in a few kernels: backward() would start one for each parameter."""
        loss = self.loss_of(inputs)
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
        torch._foreach_add_(self.gradients, found)
        return loss.detach()

    def reserve(self, inputs: dict[str, Any]) -> None:
        """Captures the largest inputs first: all others fit in the memory of their graph, not vice versa. Gradients and
        random states stay unchanged."""
        self.take_over_gradients()
        before = self.flat.clone()
        spare = self.flat.new_empty(2, len(self.flat))  # a graph never returns its memory, and the optimizer needs some
        with torch.random.fork_rng([self.device]):
            for _ in range(2):
                self(inputs)
        del spare
        self.flat.copy_(before)

    def zero(self) -> None:
        """Sets all gradients to zero, and leaves them where they are."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        self.flat.zero_()

    def clip(self, max_norm: float) -> torch.Tensor:
        """Scales the gradients down to a norm of at most `max_norm`, as torch's `clip_grad_norm_`, and returns the norm
        they had."""
        norm = torch.linalg.vector_norm(self.flat)
        self.flat.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def add_over_processes(self) -> None:
        """Adds up over all processes, each of which has the gradients of its part of the step's loss."""
        torch.distributed.all_reduce(self.flat)

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
