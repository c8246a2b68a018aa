"""Several processes of one command, and how they share the rows of a pass without gradients.

torch is imported where it is needed: commands that start no model start faster without it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")


def world_size() -> int:
    """How many processes `accelerate launch` or torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """The one that writes."""
    return rank() == 0


def wait_for_all() -> None:
    """Returns when all processes are here."""
    if world_size() > 1:
        import torch.distributed

        torch.distributed.barrier()


def leave_group() -> None:
    """Ends the talk of several processes, where there was any: torch warns of a process that goes without."""
    if world_size() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def local_shard(items: Sequence[Item]) -> Sequence[Item]:
    return items[rank() :: world_size()]


def all_gather_rows(found: torch.Tensor, total: int, device: torch.device) -> torch.Tensor:
    """Of shape (total, ...), on the CPU: what all processes found, in the order of the items, from what this one
    `found` of its share, on the CPU too."""
    import torch

    whole = torch.zeros(total, *found.shape[1:], dtype=found.dtype)
    whole[rank() :: world_size()] = found
    return all_reduce_sum(whole, device)


def all_reduce_sum(found: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The sum over all processes of what each found, on the CPU, as `found` is."""
    if world_size() == 1:
        return found
    import torch.distributed

    whole = found.to(device)
    torch.distributed.all_reduce(whole)
    return whole.cpu()


def broadcast(value: Item | None) -> Item | None:
    """The `value` of the first process, in all."""
    if world_size() == 1:
        return value
    import torch.distributed

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]
