"""Products of an input with frozen weights of which a part is trained, as operators of torch's.

They are operators since a compiled autograd.Function mixed up its tensors (torch 2.11).
"""

from collections.abc import Sequence
from typing import Any

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from torch import _dynamo, library, nn
from torch.nn import functional

from stages.model import unpack_kernel


@library.custom_op("fused_lora::linear_with_parts", mutates_args=())
def linear_with_parts(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, parts: list[torch.Tensor], places: list[int]
) -> torch.Tensor:
    """x weightᵀ + bias, of shape (N, out), where parts of the frozen weight are trained.

    Args:
        x: (N, in).
        weight: (out, in), which gets no gradient as a whole.
        bias: (out,), or None; it gets none either.
        parts: parameters that the weight holds a copy of, which get their gradients.
        places: row and column where the copy of each begins, one after another.
    """
    return functional.linear(x, weight, bias)


@linear_with_parts.register_fake
def fake_linear(x, weight, bias, parts, places):
    return x.new_empty(x.shape[0], weight.shape[0])


def keep_for_backward(ctx, inputs, output) -> None:
    x, weight, _, parts, places = inputs
    ctx.save_for_backward(x, weight)
    ctx.spans = spans(parts, places)


def spans(parts: Sequence[torch.Tensor], places: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """First and last row, then column, of each part."""
    starts = zip(places[::2], places[1::2], strict=True)
    return [
        (row, row + part.shape[0], column, column + part.shape[1])
        for part, (row, column) in zip(parts, starts, strict=True)
    ]


def gradients(ctx, dy):
    x, weight = ctx.saved_tensors
    return dy @ weight if ctx.needs_input_grad[0] else None, None, None, gradients_of_parts(x, dy, ctx.spans), None


def gradients_of_parts(
    x: torch.Tensor, dy: torch.Tensor, places: list[tuple[int, int, int, int]]
) -> list[torch.Tensor]:
    top, bottom, left, right = zip(*places, strict=True)
    first_row, first_column = min(top), min(left)
    # One product for all parts: between them it computes what nobody needs, and one large product is faster.
    whole = dy[:, first_row : max(bottom)].t() @ x[:, first_column : max(right)]
    return [whole[a - first_row : b - first_row, c - first_column : d - first_column].float() for a, b, c, d in places]


linear_with_parts.register_autograd(gradients, setup_context=keep_for_backward)


@library.custom_op("fused_lora::unpacked", mutates_args=())
def unpacked(
    frozen: list[torch.Tensor], code: torch.Tensor, beside: torch.Tensor, sizes: list[int], block: int, kind: str
) -> torch.Tensor:
    """4-bit weights in one matrix, of the dtype of `beside`: below one another, with `beside` at their right side, or
    below the only one.

    Args:
        frozen: what `frozen_of` gives for each weight, one after another.
        code: the 16 values of the codes, float32.
        beside: a matrix, (sum of out, P) for the right side, or (P, in).
        sizes: out of each weight, then in of all.
        block: numbers that share a scale.
        kind: nf4 or fp4.
    """
    *heights, width = sizes
    right = beside.shape[0] == sum(heights)
    shape = (sum(heights), width + beside.shape[1]) if right else (sum(heights) + beside.shape[0], width)
    whole = beside.new_empty(shape)
    into = whole[:, width:] if right else whole[sum(heights) :]
    each, row = len(frozen) // len(heights), 0
    by_kernel = whole.is_cuda and unpack_kernel.triton is not None
    for number, height in enumerate(heights):
        own, target = frozen[number * each :][:each], whole[row : row + height, :width]
        row += height
        if not by_kernel:
            target.copy_(dequantize_4bit(own[0], state_of(own, code, target.shape, target.dtype, block, kind)))
        elif number == 0:
            unpack_kernel.unpack(own, code, block, target, beside, into)
        else:
            unpack_kernel.unpack(own, code, block, target)
    if not by_kernel:
        into.copy_(beside)
    return whole


@unpacked.register_fake
def fake_unpacked(frozen, code, beside, sizes, block, kind):
    *heights, width = sizes
    if beside.shape[0] == sum(heights):
        return beside.new_empty(sum(heights), width + beside.shape[1])
    return beside.new_empty(sum(heights) + beside.shape[0], width)


def frozen_of(weight: torch.Tensor, state: QuantState) -> list[torch.Tensor]:
    """A 4-bit weight's codes and scales; of scales that are quantized, also values, scales and the offset."""
    nested = [state.state2.code, state.state2.absmax, state.offset.reshape(1)] if state.nested else []
    return [weight.data, state.absmax, *nested]


def state_of(frozen, code, shape, dtype, block: int, kind: str) -> QuantState:
    """What bitsandbytes unpacks by."""
    _, scales, *nested = frozen
    offset, scales_of_scales = None, None
    if nested:
        offset = nested[2]
        scales_of_scales = QuantState(
            nested[1], code=nested[0], blocksize=unpack_kernel.SCALE_BLOCK, dtype=torch.float32
        )
    return QuantState(scales, shape, code, block, kind, dtype, offset, scales_of_scales)


@library.custom_op("fused_lora::packed_linear_with_parts", mutates_args=())
def packed_linear_with_parts(
    x: torch.Tensor,
    frozen: list[torch.Tensor],
    code: torch.Tensor,
    beside: torch.Tensor,
    sizes: list[int],
    block: int,
    kind: str,
    bias: torch.Tensor | None,
    parts: list[torch.Tensor],
    places: list[int],
) -> torch.Tensor:
    """`linear_with_parts` of 4-bit weights (`unpacked`), which are unpacked for this product and again backward."""
    return functional.linear(x, unpacked(frozen, code, beside, sizes, block, kind), bias)


@packed_linear_with_parts.register_fake
def fake_packed_linear(x, frozen, code, beside, sizes, block, kind, bias, parts, places):
    return x.new_empty(x.shape[0], fake_unpacked(frozen, code, beside, sizes, block, kind).shape[0])


def keep_packed_for_backward(ctx, inputs, output) -> None:
    x, frozen, code, beside, ctx.sizes, ctx.block, ctx.kind, _, parts, places = inputs
    ctx.save_for_backward(x, code, beside, *frozen)
    ctx.spans = spans(parts, places)


def gradients_of_packed(ctx, dy):
    x, code, beside, *frozen = ctx.saved_tensors
    weight = unpacked(frozen, code, beside, ctx.sizes, ctx.block, ctx.kind) if ctx.needs_input_grad[0] else None
    dx = None if weight is None else dy @ weight
    nothing = [None] * len(frozen)
    return dx, nothing, None, None, None, None, None, None, gradients_of_parts(x, dy, ctx.spans), None


packed_linear_with_parts.register_autograd(gradients_of_packed, setup_context=keep_packed_for_backward)


class WholeWeights:
    """Unquantized weights below one another, which become views of one memory.

    Args:
        bases: linear layers.
        added: P, columns at the right or, if `below`, rows below.

    Attributes:
        beside: the added part, (out, P) or (P, in), to be filled with copies.
    """

    def __init__(self, bases: Sequence[nn.Linear], added: int, below: bool):
        height, width = sum(base.out_features for base in bases), bases[0].in_features
        shape = (height + added, width) if below else (height, width + added)
        self.weight, row = bases[0].weight.data.new_zeros(shape), 0
        _dynamo.mark_static(self.weight)  # of all sizes, only the number of tokens varies
        for base in bases:
            own = self.weight[row : row + base.out_features, :width]
            own.copy_(base.weight.data)
            base.weight.data = own
            row += base.out_features
        self.beside = self.weight[height:] if below else self.weight[:, width:]

    def product(self, x, bias, parts, places) -> torch.Tensor:
        """`linear_with_parts` with these weights."""
        return linear_with_parts(x, self.weight, bias, parts, places)


class PackedWeights:
    """The same with 4-bit weights, which stay as they are and are unpacked for each product."""

    def __init__(self, bases: Sequence[bnb.nn.Linear4bit], added: int, below: bool):
        states = [state_in(base) for base in bases]
        self.frozen = [
            part for base, state in zip(bases, states, strict=True) for part in frozen_of(base.weight, state)
        ]
        self.code, self.block, self.kind = states[0].code, states[0].blocksize, states[0].quant_type
        self.sizes = [*(base.out_features for base in bases), bases[0].in_features]
        height, width = sum(self.sizes[:-1]), self.sizes[-1]
        shape = (added, width) if below else (height, added)
        self.beside = torch.zeros(shape, dtype=dtype_of(bases[0]), device=self.code.device)
        for tensor in (*self.frozen, self.code, self.beside):
            _dynamo.mark_static(tensor)

    def product(self, x, bias, parts, places) -> torch.Tensor:
        """`packed_linear_with_parts` with these weights."""
        return packed_linear_with_parts(
            x, self.frozen, self.code, self.beside, self.sizes, self.block, self.kind, bias, parts, places
        )


def packable(base: bnb.nn.Linear4bit) -> bool:
    """Whether a 4-bit layer's weight lies in bytes on its device, as bitsandbytes packs it, and the layer computes in
    the dtype to which it is unpacked."""
    state = getattr(base.weight, "quant_state", None)
    in_bytes = base.weight.dtype == torch.uint8 and type(base.weight.data) is torch.Tensor
    return state is not None and in_bytes and state.dtype == dtype_of(base)


def state_in(base: bnb.nn.Linear4bit) -> QuantState:
    return base.weight.quant_state  # type: ignore[attr-defined]


def dtype_of(base: nn.Linear) -> torch.dtype:
    """The dtype in which a layer computes."""
    if isinstance(base, bnb.nn.Linear4bit):
        return base.compute_dtype or state_in(base).dtype
    return base.weight.dtype


def kind_of(base: nn.Linear) -> tuple[Any, ...]:
    """What has to be equal in weights that lie in one matrix."""
    if not isinstance(base, bnb.nn.Linear4bit):
        return (dtype_of(base),)
    state = state_in(base)
    return dtype_of(base), state.quant_type, state.blocksize, state.nested
