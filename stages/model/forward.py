"""The logits of the answer's tokens, and of no others."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from stages.model.layout import Layout, layout_of
from stages.model.packed_attention import has_varlen, pack

LENGTH_MULTIPLE = 32  # few shapes occur: libraries cache memory for each (on a CPU, 1.2 GB more without this)


def completion_logits(model: nn.Module, batch: dict[str, torch.Tensor], shared: int = 0) -> torch.Tensor:
    """Logits (B, K, vocabulary) of the answers' tokens, from one forward pass in the model's layout.

    Args:
        model: the base model, with or without adapters.
        batch: on the CPU, input_ids (B, T) and positions (B, K): each token of an answer follows one of them.
        shared: tokens of the shared prompt prefix, the same at the start of all rows.
    """
    head = output_head(model).weight
    layout = layout_of(model)
    if layout is Layout.PADDED:
        return padded_logits(model, to_device(padded(batch), head.device))
    if layout is Layout.EQUAL_LENGTHS:
        return equal_length_logits(model, batch)
    packed = pack(batch, shared, has_varlen(head.device, head.dtype), LENGTH_MULTIPLE)
    return packed_logits(model, to_device(packed, head.device))


def output_head(model: nn.Module) -> nn.Linear:
    inner: Any = getattr(model, "module", model)
    return inner.get_output_embeddings()


def to_device(packed: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: pinned(value, device).to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in packed.items()
    }


def pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor in pinned memory, which a GPU reads by itself while the CPU does other work."""
    return tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor


@contextlib.contextmanager
def picking(head: nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Lets the output head see the hidden states at `positions` (B, K) only, counted over all rows of the pass.

    With a vocabulary of 151,936, the logits of 16 x 427 tokens would take 4 GB in float32. A hook picks the positions,
    so that the model's own forward still applies adapters, checkpointing and soft-capping.
    """
    pick = head.register_forward_pre_hook(lambda head, hidden: (hidden[0].flatten(0, 1)[positions],))
    try:
        yield
    finally:
        pick.remove()


def packed_logits(model: nn.Module, packed: dict[str, Any]) -> torch.Tensor:
    """Logits (B, K, vocabulary) of packed texts."""
    with picking(output_head(model), packed["positions"][0]):
        return model(**{name: value for name, value in packed.items() if name != "positions"}, use_cache=False).logits


def padded_logits(model: nn.Module, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits (B, K, vocabulary) of rows without position_ids, through the model as transformers ships it."""
    first = torch.arange(len(rows["input_ids"]), device=rows["input_ids"].device) * rows["input_ids"].shape[1]
    with picking(output_head(model), rows["positions"] + first.unsqueeze(1)):
        return model(**{name: value for name, value in rows.items() if name != "positions"}, use_cache=False).logits


def padded(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rows padded on the right, with a mask. No token of a causal model sees later tokens, so the padding changes
    nothing, whether layers attend, convolve or carry a state."""
    ids, positions = batch["input_ids"], batch["positions"]
    mask = torch.arange(ids.shape[1]) <= positions[:, -1:]
    return {"input_ids": ids, "attention_mask": mask.long(), "positions": positions}


def equal_length_logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits (B, K, vocabulary), from one pass for each length, without padding."""
    device = output_head(model).weight.device
    lengths = batch["positions"][:, -1] + 1
    found, order = [], []
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        part = {"input_ids": batch["input_ids"][rows, :length], "positions": batch["positions"][rows]}
        found.append(padded_logits(model, to_device(part, device)))
        order.append(rows)
    return torch.cat(found)[torch.cat(order).argsort().to(device)]


@contextlib.contextmanager
def label_rows(model: nn.Module, label_ids: torch.Tensor, vocabulary: bool) -> Iterator[bool]:
    """Makes the output head compute the logits of `label_ids` (2,) in float64, from the last hidden state.

    Logits in bfloat16 lie on a grid (steps of 1/16 around 10), so different texts get equal scores; in float32, a few
    of ten thousand still do. The model soft-caps or scales these logits as its own. With `vocabulary`, they follow the
    whole vocabulary's logits, in float32, as two more columns; without, nothing else is computed.

    Yields whether the head does so: one that is quantized or has an adapter stays unchanged.
    """
    head = output_head(model)
    if type(head) is not nn.Linear:
        yield False
        return
    weight = head.weight.index_select(0, label_ids).double()
    bias = None if head.bias is None else head.bias.index_select(0, label_ids).double()

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        rows = functional.linear(hidden.double(), weight, bias)
        if not vocabulary:
            return rows
        return torch.cat([functional.linear(hidden, head.weight, head.bias).float(), rows.float()], dim=-1)

    with computing(head, forward):
        yield True


@contextlib.contextmanager
def computing(head: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Makes the output head compute `forward` instead of its own."""
    own = head.__dict__.get("forward")  # which a library may have set on the module
    head.forward = forward
    try:
        yield
    finally:
        del head.forward
        if own is not None:
            head.forward = own
