"""Low-rank adapters (LoRA, arXiv:2106.09685) on a frozen base model."""

import re
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stages.errors import UserError
from stages.model.fsdp import is_sharded
from stages.model.layout import underlying
from stages.model.patches import compute_in_base_dtype
from stages.params import Train

# Linear layers whose weights the model itself clamps in training (Gemma 3n): a copy, a view or bytes won't do.
CHANGED_IN_PLACE = ["prediction_coefs", "correction_coefs"]
LINEAR = (nn.Linear, nn.Embedding, nn.Conv1d, Conv1D)  # which peft can adapt; bitsandbytes' layers are nn.Linear


def attach_adapter(model: PreTrainedModel, train: Train) -> peft.PeftModel:
    """Adds fresh adapters in float32. B is zero, so the model's output is the base model's until it is trained.

    `all-linear` means the linear layers of the decoder layers; the output head and experts get no adapter. The initial
    weights follow `train.seed`. Raises UserError for names in `train.target_modules` that the model lacks, and for
    quantized layers that the model changes in training.
    """
    require_targets(model, train.target_modules)
    require_changeable(model)
    torch.manual_seed(train.seed)
    config = peft.LoraConfig(
        r=train.r,
        lora_alpha=train.lora_alpha,
        lora_dropout=train.lora_dropout,
        target_modules=targets(model, train.target_modules),
        task_type=peft.TaskType.CAUSAL_LM,
    )
    return compute_in_base_dtype(peft.get_peft_model(model, config))


def require_changeable(model: PreTrainedModel) -> None:
    for name, module in model.named_modules():
        if is_named(name, CHANGED_IN_PLACE) and isinstance(module, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)):
            raise UserError(
                f"{name} is quantized, and {model.config.model_type} changes its weights in training: choose a method "
                "that keeps weights unquantized in memory, such as lora or qlora-dequantized"
            )


def targets(model: PreTrainedModel, names: str | list[str]) -> str | list[str]:
    """The `target_modules` for peft: `names`. In a mixture of experts, the names of all linear layers for all-linear.

    There, peft takes names such as gate_proj, also in a dense or shared layer, for those of the experts. It would adapt
    experts by matrices of their own, router included (peft/utils/transformers_weight_conversion.py).
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
    """Suffixes of names that peft takes for those of experts, in this architecture."""
    kind = _MODEL_TO_CONVERSION_PATTERN.get(model.config.model_type or "", "")
    return list(_MOE_TARGET_MODULE_MAPPING.get(kind, {}))


def is_named(name: str, suffixes: list[str]) -> bool:
    return any(f".{name}".endswith(f".{suffix}") for suffix in suffixes)


def require_targets(model: PreTrainedModel, names: str | list[str]) -> None:
    """Raises UserError unless each name is that of a linear layer. A string other than all-linear is, as in peft, a
    regular expression that matches whole names."""
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
            f"train.target_modules: {', '.join(missing) or 'no name'} is not a linear layer of "
            f"{type(model).__name__} that can be adapted; expected all-linear, or a list of names among "
            f"{', '.join(there)}"
        )


def load_adapter(model: PreTrainedModel, path: Path) -> peft.PeftModel:
    """Puts a trained adapter on the base model, for scoring. Weights are read from safetensors only.

    Raises UserError unless the file's weights are exactly those of the adapter: for a missing weight, peft keeps an
    adapter that changes nothing, and it ignores a weight that has no place.
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
    kernels run. Does nothing where weights are quantized or sharded, or where an adapted weight is also the
    embeddings'. The base model alone can't be used afterwards."""
    if is_sharded(model):
        return model
    base: Any = underlying(model)
    embeddings = base.get_input_embeddings().weight.data_ptr()
    adapted: list[Any] = [module.get_base_layer() for module in model.modules() if isinstance(module, LoraLayer)]
    quantized = any(isinstance(layer, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt) for layer in adapted)
    if not quantized and all(layer.weight.data_ptr() != embeddings for layer in adapted):
        model.merge_adapter()
    return model
