"""Training in several processes: each holds the whole adapter, and gradients are added up once an optimizer step.

torch's DistributedDataParallel would add them up within the passes, so that a process could not capture its passes as
CUDA graphs, or cut a batch into micro-batches, on its own.
"""

import functools
from collections.abc import Iterable
from typing import cast

import torch
from accelerate import Accelerator
from torch import nn


def keep_unwrapped(accelerator: Accelerator) -> None:
    """Makes the Trainer's accelerator leave the model as it is, not in DistributedDataParallel."""
    accelerator.prepare_model = functools.partial(accelerator.prepare_model, evaluation_mode=True)


def broadcast_trained(model: nn.Module) -> None:
    """Gives all processes the first one's adapter: other GPUs may draw other first weights."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.distributed.broadcast(parameter.data, src=0)


def all_reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Adds up over all processes, each of which has the gradients of its part of the step's loss."""
    gradients = [cast(torch.Tensor, parameter.grad) for parameter in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    sums = flat.split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [s.view_as(gradient) for s, gradient in zip(sums, gradients, strict=True)])
