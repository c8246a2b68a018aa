"""What this project changes in torch, peft and bitsandbytes while it runs a model: what, why, and the test that notices
when it is no longer needed.

None of this changes results beyond rounding. Other rooms set what a library offers to be set.
"""

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import bitsandbytes as bnb
import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel


def keep_packing(model: nn.Module) -> None:
    """Keeps bitsandbytes from repacking 4-bit weights on CPUs with AVX512-bf16.

    There, the first pass in eval mode repacks them for a kernel that is installed separately. Without that kernel,
    every later pass is about 60 times slower, and gradients are wrong without an error (bitsandbytes 0.50.2).
    Obsolete when test_bitsandbytes_still_decides_by_the_cpu_whether_to_repack fails.
    """
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def keep_head_input_contiguous(model: PreTrainedModel) -> None:
    """Makes the hidden states contiguous before the output head.

    Only the last positions' hidden states reach the head: a view with gaps. torch multiplies such a view by a frozen
    weight as a batched product, and copies the whole head for each row: 6 s instead of 0.1 s on 2 cores, with 8 rows
    and a vocabulary of 262,144 (torch 2.13, `should_fold` in ATen/native/LinearAlgebra.cpp).
    Obsolete when test_torch_still_copies_a_frozen_weight_once_a_row_for_a_view_with_gaps fails.
    """
    model.get_output_embeddings().register_forward_pre_hook(lambda head, inputs: (inputs[0].contiguous(),))


def compute_in_base_dtype(model: peft.PeftModel) -> peft.PeftModel:
    """Makes the adapters, which stay float32, compute in the base model's dtype.

    peft casts each layer's input up to float32 instead, and keeps that copy for the backward pass.
    Obsolete when test_peft_still_casts_inputs_up_to_the_adapters_float32 fails.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.forward = MethodType(lora_forward, module)
    return model


def lora_forward(layer: LoraLayer, x: torch.Tensor) -> torch.Tensor:
    """W x + scaling B A dropout(x) in the dtype of W x, for x of shape (..., in)."""
    y = layer.base_layer(x)
    drop_kept_input(y)
    if layer.merged:
        if layer.disable_adapters:
            raise RuntimeError("the adapters are part of the weights, so the base model alone is no longer available")
        return y
    if layer.disable_adapters:
        return y
    (name,) = layer.active_adapters
    a, b = (side[name].weight.to(y.dtype) for side in (layer.lora_A, layer.lora_B))
    low = functional.linear(layer.lora_dropout[name](x.to(y.dtype)), a)  # type: ignore[arg-type]
    added = torch.addmm(y.flatten(0, -2), low.flatten(0, -2), b.t(), alpha=layer.scaling[name])  # type: ignore[operator]
    return added.view_as(y)


def drop_kept_input(y: torch.Tensor) -> None:
    """Releases the input that bitsandbytes' 8-bit product keeps for a gradient of its weight, which is frozen.

    The input is an attribute of the product's node, not one of autograd's saved tensors, so activation checkpointing
    does not see it and saves next to nothing in int8 (bitsandbytes 0.50.2, MatMul8bitLt and MatMul8bitFp).
    Obsolete when test_bitsandbytes_still_keeps_the_input_of_8_bit_products fails.
    """
    if torch.compiler.is_compiling():  # which can't look at nodes, and would break the layer apart here
        return
    node: Any = y.grad_fn
    if type(node).__name__ == "MatMul8bitLtBackward":
        node.tensors = (None, None, None)
    elif type(node).__name__ == "MatMul8bitFpBackward":
        node.A = None


def name_bytes_float32(layer: nn.Module) -> None:
    """Gives a layer's 4-bit weights the dtype float32, with the same bytes, as bitsandbytes' quant_storage does.

    FSDP2 shards floating-point numbers only. In a group of parameters of several dtypes it copies all as bytes, in one
    of float32 alone as what they are. Not bfloat16: torch's _foreach_copy_ on GPUs makes all its NaNs the same one, and
    some packed bytes look like NaNs (bitsandbytes issue 1945; seen with torch 2.11 as losses that were .04 off).
    No test notices that this is obsolete: the fault shows on GPUs only.
    """
    for module in layer.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.weight.data = module.weight.data.flatten().view(torch.float32).unsqueeze(1)


@contextlib.contextmanager
def without_outliers(base: PreTrainedModel) -> Iterator[None]:
    """Makes bitsandbytes' 8-bit layers treat all columns alike, within the block.

    They find the columns with outliers in the whole pass, so a text's rounding changes with the other texts, by more
    than a leak between texts would.
    Needed as long as test_rounding_is_no_leak needs it.
    """
    layers = [module for module in base.modules() if isinstance(module, bnb.nn.Linear8bitLt)]
    thresholds = [layer.state.threshold for layer in layers]
    for layer in layers:
        layer.state.threshold = 0.0
    try:
        yield
    finally:
        for layer, threshold in zip(layers, thresholds, strict=True):
            layer.state.threshold = threshold
