"""Several processes of one command, and how they share the rows of a forward pass.

torch is imported inside functions, so that commands without a model start faster.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")


def world_size() -> int:
    """The number of processes that `accelerate launch` or torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def wait_for_all() -> None:
    """Returns when all processes have called it."""
    if world_size() > 1:
        import torch.distributed

        torch.distributed.barrier()


def leave_group() -> None:
    """Closes the process group, if there is one: torch warns about a process that exits without that."""
    if world_size() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def local_shard(items: Sequence[Item]) -> Sequence[Item]:
    """The items of this process: every `world_size`-th, from its rank on."""
    return items[rank() :: world_size()]


def all_gather_rows(found: torch.Tensor, total: int, device: torch.device) -> torch.Tensor:
    """Gathers the rows that all processes computed, in the order of the items.

    Args:
        found: rows of this process's shard, shape (n_shard, ...), on the CPU.
        total: number of rows of all processes.
        device: where the processes exchange them.

    Returns:
        Rows of shape (total, ...), on the CPU.
    """
    import torch

    whole = torch.zeros(total, *found.shape[1:], dtype=found.dtype)
    whole[rank() :: world_size()] = found
    return all_reduce_sum(whole, device)


def all_reduce_sum(found: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The sum of `found` over all processes. Both are on the CPU; `device` is where the processes exchange them."""
    return found if world_size() == 1 else add_over_processes(found.to(device)).cpu()


def add_over_processes(found: torch.Tensor) -> torch.Tensor:
    """Adds up `found` over all processes in place, where it lies. On a GPU the sum is queued, and nothing waits."""
    if world_size() > 1:
        import torch.distributed

        torch.distributed.all_reduce(found)
    return found


def broadcast(value: Item | None) -> Item | None:
    """The `value` of the first process, in all processes."""
    if world_size() == 1:
        return value
    import torch.distributed

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0, group=cpu_group())
    return box[0]


@functools.cache
def cpu_group() -> torch.distributed.ProcessGroup | None:
    """The processes as a group that exchanges by the CPU: through NCCL, a value would come after all that the GPU has
    still to do."""
    import torch.distributed

    return torch.distributed.new_group(backend="gloo") if torch.distributed.get_backend() == "nccl" else None
