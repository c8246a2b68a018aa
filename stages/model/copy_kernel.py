"""Copies hundreds of small matrices in one GPU kernel: torch would start one for each matrix that has gaps."""

from collections.abc import Callable, Sequence

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for CPUs comes without it, and nothing is copied there
    triton = None

NUMBERS = 2048  # that one program copies

if triton is not None:
    KINDS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}

    @triton.jit
    def copy_numbers(table, kind: tl.constexpr, count: tl.constexpr):
        """Copies `count` numbers of one matrix, as numbers of type `kind`.

        table: for each matrix, address of source and target, rows, columns, and the target's row stride, as int64.
        """
        entry = table + tl.program_id(0) * 5
        source = tl.load(entry).to(tl.pointer_type(tl.float32))
        target = tl.load(entry + 1).to(tl.pointer_type(kind))
        height, width, stride = tl.load(entry + 2), tl.load(entry + 3), tl.load(entry + 4)
        numbers = tl.program_id(1) * count + tl.arange(0, count)
        inside = numbers < height * width
        values = tl.load(source + numbers, mask=inside)
        tl.store(target + numbers // width * stride + numbers % width, values.to(kind), mask=inside)


def copying(copied: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Callable[[], None]:
    """A function that copies each second matrix (float32, without gaps) to the first one, as it is then.

    copied: matrices of the same shape, whose rows have no gaps, on one GPU, the first ones of one dtype. From the
    first copy on, they have to stay at their addresses.
    """
    table, grid, kind = None, (0, 0), KINDS[copied[0][0].dtype]

    def copy() -> None:
        nonlocal table, grid
        if table is None:
            table, grid = table_of(copied)
        copy_numbers[grid](table, kind, NUMBERS)

    return copy


def table_of(copied: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, tuple[int, int]]:
    """What the kernel reads, on the GPU, and how many programs it takes."""
    for target, source in copied:
        assert source.dtype == torch.float32
        assert source.is_contiguous()
        assert target.stride(1) == 1
        assert target.shape == source.shape
        assert target.dtype == copied[0][0].dtype
    entries = [[s.data_ptr(), t.data_ptr(), *t.shape, t.stride(0)] for t, s in copied]
    table = torch.tensor(entries, dtype=torch.int64, device=copied[0][0].device)
    return table, (len(entries), -(-max(target.numel() for target, _ in copied) // NUMBERS))
