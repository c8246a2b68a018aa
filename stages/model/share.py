"""Texts shared out to several processes, for passes without gradients: each takes every so many-th, reads and batches
its own, and all get what all found."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed
from torch import nn

from stages import rank, world_size
from stages.model.shard import is_sharded

Item = TypeVar("Item")


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    return items[rank() :: world_size()]


def passes_to_join(model: nn.Module, own: int, device: torch.device) -> int:
    """How many passes a process must make after its `own`: where blocks are split it gathers them with all others, as
    often as the one with most. To be asked before the first pass, since processes ask each other."""
    if not is_sharded(model):
        return 0
    most = torch.tensor(own, device=device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return int(most) - own


def gathered(found: torch.Tensor, total: int, device: torch.device) -> torch.Tensor:
    """Of shape (total, ...), on the CPU: what all processes found, in the order of the items, from what this one
    `found` of its share, on the CPU too."""
    whole = torch.zeros(total, *found.shape[1:], dtype=found.dtype)
    whole[rank() :: world_size()] = found
    return added_up(whole, device)


def added_up(found: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The sum over all processes of what each found, on the CPU, as `found` is."""
    if world_size() == 1:
        return found
    whole = found.to(device)
    torch.distributed.all_reduce(whole)
    return whole.cpu()


def from_first(value: Item | None) -> Item | None:
    """The `value` of the first process, in all."""
    if world_size() == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]
