"""Forward and backward pass as one CUDA graph for each shape."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from stages.model.cuda_graphs import CapturedPasses


class CapturedGradients(CapturedPasses):
    """Passes that return a loss, and add its gradients up in the parameters' .grad.

    Args:
        loss_of: a loss of one number, from inputs on the GPU, in operations that a graph can hold.
        parameters: those that are trained.
    """

    def __init__(self, loss_of: Callable[[dict[str, Any]], torch.Tensor], parameters: Iterable[torch.nn.Parameter]):
        self.loss_of = loss_of
        self.parameters = list(parameters)
        self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
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
