"""Adapted linear layers in fewer and larger matrix products, for training on a GPU.

An adapted layer computes y = W x + s B A x with a frozen W. By itself it takes six small products beside the large
ones, two of them forward, and reads and writes y once more. Here, layers that read the same input (query,
key and value; gate and up) share every product. One of an adapter's two matrices lies in the frozen weight's memory:

    wide    [W | B]: y = [x | s A x] [W | B]ᵀ. The gradient of both inputs is the one product dy [W | B]
    tall    [W ; A]: x [W ; A]ᵀ holds W x and A x. The gradient of x is the one product [dy | s dy B] [W ; A]

`wide` copies the input once and `tall` the output, so the narrower one decides. The adapters stay peft's parameters in
float32. `refresh` copies the matrix that lies in the frozen memory there, before each pass.
"""

import functools
from collections.abc import Callable
from itertools import accumulate
from types import MethodType
from typing import Any

import bitsandbytes as bnb
import torch
from peft.tuners.lora import LoraLayer
from torch import _dynamo, nn
from torch.nn import functional

from stages.model.fused_products import PackedWeights, WholeWeights, dtype_of, kind_of, packable
from stages.model.layout import underlying
from stages.model.lora import CHANGED_IN_PLACE
from stages.model.patches import lora_forward

SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # called in this order with one input
RANK_MULTIPLE = 16  # an adapter's rows or columns are filled up to this: matrix units read aligned rows


class FusedLayers:
    """Adapted layers that read one input, in one product.

    Unquantized weights become views of a common memory, with the copies of adapters beside them. Those of 4 bits stay
    as they are, and each product unpacks them to the copies' side.

    Args:
        layers: peft's layers on linear ones, all unquantized or all of 4 bits, in the order in which they are called.

    Attributes:
        weights: the frozen ones, with the copies beside them: (out, in + P) or, if `tall`, (out + P, in).
        copied: parts of the copies' memory, each with the parameter that it holds a copy of.
    """

    def __init__(self, layers: list[Any]):
        (name,) = layers[0].active_adapters
        self.lows = [layer.lora_A[name].weight for layer in layers]
        self.highs = [layer.lora_B[name].weight for layer in layers]
        bases = [layer.get_base_layer() for layer in layers]
        # On the layers' device: the compiler makes a number an input on the CPU, and builds C++ for it (45 s of 65).
        self.scaling = self.lows[0].new_tensor(layers[0].scaling[name], dtype=torch.float32)
        self.sizes = [base.out_features for base in bases]
        self.width, self.height, self.rank = bases[0].in_features, sum(self.sizes), self.lows[0].shape[0]
        self.filling = -self.rank * len(layers) % RANK_MULTIPLE
        self.bias = None
        if any(base.bias is not None for base in bases):
            self.bias = torch.cat([bias_or_zeros(base) for base in bases])
            _dynamo.mark_static(self.bias)
        self.tall = len(layers) == 1 and self.width > self.height
        added = self.rank * len(layers) + self.filling
        starts = list(accumulate(self.sizes, initial=0))[:-1]
        kind = PackedWeights if isinstance(bases[0], bnb.nn.Linear4bit) else WholeWeights
        self.weights: PackedWeights | WholeWeights = kind(bases, added, self.tall)
        parts = self.lows if self.tall else self.highs
        corners = [(0, 0)] if self.tall else [(row, number * self.rank) for number, row in enumerate(starts)]
        self.copied = [
            (self.weights.beside[row : row + part.shape[0], column : column + part.shape[1]], part)
            for part, (row, column) in zip(parts, corners, strict=True)
        ]
        below, right = (self.height, 0) if self.tall else (0, self.width)
        self.places = [number for row, column in corners for number in (row + below, column + right)]
        self.pending: tuple[torch.Tensor, list[torch.Tensor]] | None = None

    def outputs(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The outputs (..., out) of all layers for x of shape (..., in)."""
        flat = x.flatten(0, -2).to(self.weights.beside.dtype)
        y = self.tall_product(flat) if self.tall else self.wide_product(flat)
        # Not split(): autograd lets nobody change one of several views in place, as Gemma 3n and OLMo do.
        starts = accumulate(self.sizes, initial=0)
        parts = [y.narrow(1, start, size) for start, size in zip(starts, self.sizes, strict=False)]
        return [part.unflatten(0, x.shape[:-1]) for part in parts]

    def wide_product(self, x: torch.Tensor) -> torch.Tensor:
        low = functional.pad(torch.cat(self.lows) * self.scaling, (0, 0, 0, self.filling)).to(x.dtype)
        return self.weights.product(torch.cat([x, x @ low.t()], dim=1), self.bias, self.highs, self.places)

    def tall_product(self, x: torch.Tensor) -> torch.Tensor:
        high = functional.pad(self.highs[0] * self.scaling, (0, self.filling)).to(x.dtype)
        both = self.weights.product(x, None, self.lows, self.places)
        y = torch.addmm(both[:, : self.height], both[:, self.height :], high.t())
        return y if self.bias is None else y + self.bias


def bias_or_zeros(base: nn.Linear) -> torch.Tensor:
    if base.bias is not None:
        return base.bias.data.to(dtype_of(base))
    return torch.zeros(base.out_features, dtype=dtype_of(base), device=base.weight.device)


def fused_forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The layer's output for x of shape (..., in). The first layer of a group computes those of all, and the others
    take theirs, if they get the same input."""
    group, position = layer.fused, layer.fused_position
    if layer.merged or layer.disable_adapters:
        return lora_forward(layer, x)
    if position == 0:
        first, *others = group.outputs(x)
        group.pending = (x, others) if others else None
        return first
    if group.pending is None or group.pending[0] is not x:
        return lora_forward(layer, x)
    y = group.pending[1][position - 1]
    if position == len(group.sizes) - 1:
        group.pending = None
    return y


class FusedAdapters:
    """Fuses all adapted layers of unquantized and 4-bit weights without dropout. Others stay as they are.

    The weights' memory grows by one matrix of each adapter and, while a product of 4-bit weights is computed, by these
    in 16 bits. Before each pass of the base model, `refresh` brings the copies of trained matrices up to date.
    """

    def __init__(self, model: nn.Module):
        groups: list[list[Any]] = []
        for parent in model.modules():
            children: dict[str, Any] = {
                name: child
                for name, child in parent.named_children()
                if fusable(child) and name not in CHANGED_IN_PLACE
            }
            for names in SHARED_INPUT:
                if all(name in children for name in names) and alike([children[name] for name in names]):
                    groups.append([children.pop(name) for name in names])
            groups += [[child] for child in children.values()]
        self.layers: list[Any] = []
        copied = []
        for layers in groups:
            group = FusedLayers(layers)
            copied += group.copied
            for position, layer in enumerate(layers):
                layer.fused, layer.fused_position = group, position
                layer.forward = MethodType(fused_forward, layer)
            self.layers += layers
        self.refresh = refresh_of(copied)
        self.hook = underlying(model).register_forward_pre_hook(lambda *_: self.refresh())

    def undo(self) -> None:
        """Lets each layer compute by itself again."""
        self.hook.remove()
        for layer in self.layers:
            layer.forward = MethodType(lora_forward, layer)
            del layer.fused, layer.fused_position


def fusable(layer: nn.Module) -> bool:
    """Whether a layer is a linear one, unquantized or of 4 bits, with one adapter, and without dropout."""
    if not isinstance(layer, LoraLayer) or len(layer.active_adapters) != 1:
        return False
    plain = isinstance(layer.lora_dropout[layer.active_adapters[0]], nn.Identity)
    base = layer.get_base_layer()
    if isinstance(base, bnb.nn.Linear4bit):
        return plain and packable(base)
    return plain and type(base) is nn.Linear and base.weight.is_floating_point()


def alike(layers: list[Any]) -> bool:
    """Whether layers have inputs of one size, adapters of one rank and scale, and weights of one kind."""
    name = layers[0].active_adapters[0]
    kinds = {
        (
            layer.get_base_layer().in_features,
            layer.lora_A[name].weight.shape[0],
            layer.scaling[name],
            kind_of(layer.get_base_layer()),
        )
        for layer in layers
    }
    return len(kinds) == 1


def refresh_of(copied: list[tuple[torch.Tensor, nn.Parameter]]) -> Callable[[], None]:
    """A function that copies parameters (float32) into frozen memory (the base's dtype), as they are then.

    copied: each place of the memory, with the parameter of its shape.
    """
    if copied and copied[0][0].is_cuda:
        from stages.model.copy_kernel import copying  # needs Triton, as compiled layers do

        return copying(copied)
    return functools.partial(copy_all, copied)


@torch.no_grad()
def copy_all(copied: list[tuple[torch.Tensor, nn.Parameter]]) -> None:
    for place, parameter in copied:
        place.copy_(parameter)
