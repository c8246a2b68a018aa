"""Training in several processes: each holds the whole adapter, and gradients are added up once an optimizer step.

torch's DistributedDataParallel would add them up within the passes, so that a process could not capture its passes as
CUDA graphs, or cut a batch into micro-batches, on its own.
"""

import functools

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
