"""Unpacks 4-bit weights in one GPU kernel, into memory whose rows go on with an adapter's numbers.

bitsandbytes' own kernel writes a matrix without gaps, which would have to be copied.
"""

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for CPUs comes without it, and bitsandbytes unpacks there
    triton = None

NUMBERS = 1024  # that one program writes
SCALE_BLOCK = 256  # scales that share a scale, in bitsandbytes

if triton is not None:

    @triton.jit
    def unpack_numbers(
        packed, scales, code, scale_code, scale_scales, offset, target, numbers, stride,
        beside, into, beside_numbers, into_stride, programs,
        width: tl.constexpr, beside_width: tl.constexpr, block: tl.constexpr, scale_block: tl.constexpr,
        nested: tl.constexpr, count: tl.constexpr,
    ):  # fmt: skip
        """Writes `count` numbers of a matrix of 4-bit codes or, from program `programs` on, copies as many of `beside`.

        A byte holds two codes, the first in its upper half. A number is its code's value times the scale of its block.
        Scales are float32 numbers or, if `nested`, 8-bit codes with scales of their own, and an offset.
        """
        program = tl.program_id(0)
        if program < programs:
            places = program * (count // 2) + tl.arange(0, count // 2)
            inside = places < (numbers + 1) // 2
            pairs = tl.load(packed + places, mask=inside, other=0).to(tl.int32)
            blocks = places // (block // 2)  # of an even number of codes: the halves of a byte have one scale
            if nested:
                codes = tl.load(scales + blocks, mask=inside, other=0).to(tl.int32)
                scale = tl.load(scale_scales + blocks // scale_block, mask=inside, other=0)
                scale = tl.load(scale_code + codes) * scale + tl.load(offset)
            else:
                scale = tl.load(scales + blocks, mask=inside, other=0)
            both = tl.interleave(tl.load(code + (pairs >> 4)) * scale, tl.load(code + (pairs & 15)) * scale)
            positions = program * count + tl.arange(0, count)
            to = target + positions // width * stride + positions % width
            tl.store(to, both.to(target.dtype.element_ty), mask=positions < numbers)
        else:
            positions = (program - programs) * count + tl.arange(0, count)
            some = positions < beside_numbers
            values = tl.load(beside + positions, mask=some)
            tl.store(into + positions // beside_width * into_stride + positions % beside_width, values, mask=some)


def unpack(
    frozen: list[torch.Tensor],
    code: torch.Tensor,
    block: int,
    target: torch.Tensor,
    beside: torch.Tensor | None = None,
    into: torch.Tensor | None = None,
) -> None:
    """Writes a 4-bit weight's numbers to `target`, on a GPU with Triton.

    Args:
        frozen: codes of 4 bits and scales; if scales are 8-bit codes, also their values, their scales and the offset.
        code: the 16 values of the codes, float32.
        block: numbers that share a scale, a power of two above 1.
        target: (out, in) in 16 or 32 bits. Its rows may have gaps; with them it has less than 2³¹ numbers.
        beside: a matrix without gaps that is copied as it is; None for none.
        into: where to.
    """
    packed, scales, *nested = frozen
    scale_code, scale_scales, offset = nested or (scales, scales, scales)
    if beside is None or into is None:
        beside = into = target[:0]
    programs = triton.cdiv(target.numel(), NUMBERS)
    unpack_numbers[(programs + triton.cdiv(beside.numel(), NUMBERS),)](
        packed, scales, code, scale_code, scale_scales, offset, target, target.numel(), target.stride(0),
        beside, into, beside.numel(), into.stride(0), programs,
        width=target.shape[1], beside_width=beside.shape[1], block=block, scale_block=SCALE_BLOCK,
        nested=bool(nested), count=NUMBERS,
    )  # fmt: skip
