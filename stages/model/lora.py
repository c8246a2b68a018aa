"""Low-rank adapters (LoRA, arXiv:2106.09685) on a frozen base model."""

import re
from pathlib import Path
from types import MethodType

import bitsandbytes as bnb
import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING
from safetensors import safe_open
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stages.errors import UserError
from stages.model.fsdp import is_sharded
from stages.params import Train

LINEAR = (nn.Linear, nn.Embedding, nn.Conv1d, Conv1D)  # which peft can adapt; bitsandbytes' layers are the first


def attach_adapter(model: PreTrainedModel, train: Train) -> peft.PeftModel:
    """Adds fresh adapters in float32, B zero, so that the model's output is the base model's until it is trained.

    `all-linear` means the linear layers of the blocks; the output head and experts stay as they are. The first weights
    follow `train.seed`. Raises UserError for names of `train.target_modules` that the model lacks.
    """
    require_targets(model, train.target_modules)
    torch.manual_seed(train.seed)
    config = peft.LoraConfig(
        r=train.r,
        lora_alpha=train.lora_alpha,
        lora_dropout=train.lora_dropout,
        target_modules=targets(model, train.target_modules),
        task_type=peft.TaskType.CAUSAL_LM,
    )
    return compute_in_base_dtype(peft.get_peft_model(model, config))


def targets(model: PreTrainedModel, names: str | list[str]) -> str | list[str]:
    """What peft is told to adapt: `names`, but in a mixture of experts instead of all-linear the linear layers alone.

    There peft reads names such as gate_proj, of a dense or shared layer too, as those of the experts, which it would
    adapt by matrices of their own, router included (peft/utils/transformers_weight_conversion.py).
    """
    experts = expert_names(model)
    if names != "all-linear" or not experts:
        return names
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and not is_named(name, experts)
    ]


def expert_names(model: PreTrainedModel) -> list[str]:
    """Ends of names that peft reads as those of experts, in this architecture."""
    kind = _MODEL_TO_CONVERSION_PATTERN.get(model.config.model_type)
    return list(_MOE_TARGET_MODULE_MAPPING.get(kind, {}))


def is_named(name: str, ends: list[str]) -> bool:
    return any(f".{name}".endswith(f".{end}") for end in ends)


def require_targets(model: PreTrainedModel, names: str | list[str]) -> None:
    """Raises UserError unless each name is that of a linear layer; a string but all-linear is peft's, an expression
    that whole names match."""
    if names == "all-linear":
        return
    experts = expert_names(model)
    layers = [name for name, module in model.named_modules() if isinstance(module, LINEAR)]
    linear = [name for name in layers if not is_named(name, experts)]
    if isinstance(names, str):
        try:
            found = any(re.fullmatch(names, name) for name in linear)
        except re.error:
            found = False
        missing = [] if found else [names]
    else:
        missing = [
            name for name in names if is_named(name, experts) or not any(is_named(each, [name]) for each in linear)
        ]
    if missing or not names:
        there = sorted({name.rpartition(".")[2] for name in linear})
        raise UserError(
            f"train.target_modules: {', '.join(missing) or 'no name'} is no linear layer of {type(model).__name__} "
            f"that can be adapted; expected all-linear, or a list of names among {', '.join(there)}"
        )


def load_adapter(model: PreTrainedModel, path: Path) -> peft.PeftModel:
    """Puts a trained adapter on the base model, for scoring; weights from safetensors only.

    Raises UserError unless each weight of the file has its place and each place its weight: peft leaves a place
    without a weight at an adapter that changes nothing, and ignores a weight without a place.
    """
    adapted = peft.PeftModel.from_pretrained(model, path, is_trainable=False, use_safetensors=True)
    with safe_open(path / "adapter_model.safetensors", framework="pt") as file:
        found = set(file.keys())
    expected = peft.get_peft_model_state_dict(adapted).keys()
    if found != expected:
        raise UserError(
            f"{path} does not fit {type(model).__name__}: {len(expected - found)} of {len(expected)} weights of the "
            f"adapter are missing and {len(found - expected)} have no place, such as {min(expected ^ found)}; expected "
            "the adapter of this base model, by the pinned transformers and peft: run `dvc repro`"
        )
    return compute_in_base_dtype(adapted).eval()


def merge_unquantized(model: peft.PeftModel) -> peft.PeftModel:
    """Adds the adapters to the weights, for scoring: each sum is rounded to the base's dtype once, and a third fewer
    kernels have to run. Not where weights are quantized or split over GPUs, nor where the embeddings share one. There
    is no way back."""
    if is_sharded(model):
        return model
    embeddings = model.get_input_embeddings().weight.data_ptr()
    adapted = [module.get_base_layer() for module in model.modules() if isinstance(module, LoraLayer)]
    quantized = any(isinstance(layer, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt) for layer in adapted)
    if not quantized and all(layer.weight.data_ptr() != embeddings for layer in adapted):
        model.merge_adapter()
    return model


def compute_in_base_dtype(model: peft.PeftModel) -> peft.PeftModel:
    """Makes the adapters, which stay float32, compute in the base model's dtype.

    peft casts each layer's input up to the adapters' float32 instead, and keeps that copy for the backward pass.
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
            raise RuntimeError("the adapters are part of the weights: there is no base model without them any more")
        return y
    if layer.disable_adapters:
        return y
    (name,) = layer.active_adapters
    a, b = (side[name].weight.to(y.dtype) for side in (layer.lora_A, layer.lora_B))
    low = functional.linear(layer.lora_dropout[name](x.to(y.dtype)), a)
    added = torch.addmm(y.flatten(0, -2), low.flatten(0, -2), b.t(), alpha=layer.scaling[name])
    return added.view_as(y)


def drop_kept_input(y: torch.Tensor) -> None:
    """Lets go of the input that bitsandbytes' 8-bit product keeps for a gradient of its weight, which is frozen.

    It lies in attributes of the product's node, not among autograd's saved tensors, where gradient checkpointing would
    see it: without this, checkpointing saves next to nothing in int8 (bitsandbytes 0.50.2, MatMul8bitLt and -Fp).
    """
    if torch.compiler.is_compiling():  # which can't look at nodes, and would break the layer apart here
        return
    node = y.grad_fn
    if type(node).__name__ == "MatMul8bitLtBackward":
        node.tensors = (None, None, None)
    elif type(node).__name__ == "MatMul8bitFpBackward":
        node.A = None
