"""Whether what we work around in other libraries is still there: a failure here says that a patch can go.

docs/design.md lists all patches.
"""

import bitsandbytes as bnb
import peft
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode


def test_bitsandbytes_still_keeps_the_input_of_8_bit_products():
    """Else drop_kept_input (stages/model/patches.py) can go."""
    layer = bnb.nn.Linear8bitLt(16, 16, bias=False, has_fp16_weights=False)
    layer.weight.requires_grad_(False)
    out = layer.to("cpu")(torch.randn(4, 16, requires_grad=True))
    (product,) = [node for node in nodes(out.grad_fn) if type(node).__name__.startswith("MatMul8bit")]
    assert any(
        torch.is_tensor(kept) for kept in (getattr(product, "A", None), *(getattr(product, "tensors", ()) or ()))
    )


def nodes(node):
    """The nodes of a backward pass."""
    found = [node]
    for part in found:
        found += [below for below, _ in part.next_functions if below is not None and below not in found]
    return found


def test_bitsandbytes_still_decides_by_the_cpu_whether_to_repack():
    """Else keep_packing (stages/model/patches.py) can go."""
    assert hasattr(bnb.nn.Linear4bit(16, 16), "support_avx512bf16_for_cpu")


def test_peft_still_casts_inputs_up_to_the_adapters_float32():
    """Else compute_in_base_dtype (stages/model/patches.py) can go."""
    model = peft.get_peft_model(
        nn.Sequential(nn.Linear(12, 20)).bfloat16(),
        peft.LoraConfig(r=3, target_modules=["0"]),
        autocast_adapter_dtype=True,
    )
    seen = []
    model.base_model.model[0].lora_A["default"].register_forward_hook(
        lambda _, inputs, out: seen.append(inputs[0].dtype)
    )
    model(torch.randn(4, 12, dtype=torch.bfloat16))
    assert seen == [torch.float32]


class Operations(TorchDispatchMode):
    """Notes the names of the operations that torch calls."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.append(operation.__name__)
        return operation(*args, **(kwargs or {}))


def test_torch_still_copies_a_frozen_weight_once_a_row_for_a_view_with_gaps():
    """Else keep_head_input_contiguous (stages/model/patches.py) can go."""
    view = torch.randn(3, 5, 8, requires_grad=True)[:, -1:]
    with Operations() as with_gaps:
        functional.linear(view, torch.randn(6, 8))
    with Operations() as contiguous:
        functional.linear(view.contiguous(), torch.randn(6, 8))
    assert any("bmm" in name for name in with_gaps.names)
    assert not any("bmm" in name for name in contiguous.names)
