"""The gradients of the trained parameters, which are zeroed, clipped and added up without a visit to other modules."""

from collections.abc import Iterable
from typing import cast

import torch


class Gradients:
    """Gradients that lie in a tensor each, as backward() leaves them.

    Args:
        parameters: those that are trained.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]):
        self.parameters = list(parameters)

    def zero(self) -> None:
        """Drops all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def clip(self, max_norm: float) -> torch.Tensor:
        """Scales the gradients down to a norm of at most `max_norm`, and returns the norm they had."""
        return torch.nn.utils.clip_grad_norm_(self.parameters, max_norm)

    def add_over_processes(self) -> None:
        """Adds up over all processes, each of which has the gradients of its part of the step's loss."""
        for parameter in self.parameters:
            if parameter.grad is None:  # of an adapter that the model passes by in training, as Gemma 3n and Jamba do
                parameter.grad = torch.zeros_like(parameter)
        gradients = [cast(torch.Tensor, parameter.grad) for parameter in self.parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        sums = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [s.view_as(gradient) for s, gradient in zip(sums, gradients, strict=True)])
