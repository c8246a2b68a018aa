"""How the texts of a batch are laid out in a pass through the model, chosen once after loading (exactness.py)."""

import enum
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel


class Layout(enum.Enum):
    """PACKED: one row, without padding, behind the shared prompt prefix, which is computed once; the fastest.
    PADDED: one row for each text, padded on the right.
    EQUAL_LENGTHS: one row for each text, without padding, in one pass for each length; the slowest.
    """

    PACKED = "packed"
    PADDED = "padded"
    EQUAL_LENGTHS = "equal lengths"


def underlying(model: nn.Module) -> PreTrainedModel:
    """The base model below adapters and wrappers."""
    inner: Any = getattr(model, "module", model)
    base: Any = inner.get_base_model() if isinstance(inner, PeftModel) else inner
    return base


def chosen_layout(model: nn.Module) -> Layout | None:
    """None before the choice."""
    return getattr(underlying(model), "text_layout", None)


def layout_of(model: nn.Module) -> Layout:
    """The chosen layout; PACKED before the choice, for benchmarks of packing itself."""
    return chosen_layout(model) or Layout.PACKED


def set_layout(model: nn.Module, layout: Layout) -> None:
    underlying(model).text_layout = layout  # type: ignore[assignment]
