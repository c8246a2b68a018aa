"""Facts about a loaded model's weights: their bytes, and the error that quantization brought."""

import os
from pathlib import Path

import bitsandbytes as bnb
import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.bitsandbytes import dequantize_bnb_weight

from stages.errors import UserError


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights and their quantization constants. A tensor shared by two names counts once."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values() if isinstance(tensor, torch.Tensor)}
    return sum(tensor.nbytes for tensor in tensors.values())


def file_bytes(folder: Path) -> int:
    """Bytes of the weight files, which a cold load reads."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def quantization_error(model: PreTrainedModel, base_folder: Path) -> float:
    """Mean of ||W - dequantized W|| / ||W|| (Frobenius norms) over the quantized linear layers; 0 if there are none.

    It is computed where the model is: of 1.5B weights a CPU takes minutes. Layers are added up in the order of their
    names, so that equal weights have an equal error to the last digit.
    """
    layers = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt)
    }
    errors = []
    for shard in sorted(base_folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            for name in sorted(tensors.keys() & layers.keys()):
                module = layers[name]
                state = module.state if isinstance(module, bnb.nn.Linear8bitLt) else None
                restored = dequantize_bnb_weight(module.weight, state).float()  # type: ignore[arg-type]
                weight = tensors.get_tensor(name).to(restored.device).float()
                errors.append(float((weight - restored).norm() / weight.norm()))
    if len(errors) != len(layers):
        raise UserError(
            f"{base_folder} has weights for {len(errors)} of the {len(layers)} quantized layers; expected all: "
            "fetch the base model again with `dvc repro fetch --force`"
        )
    return sum(errors) / len(errors) if errors else 0.0


def drop_page_cache(folder: Path) -> None:
    """Drops the weight files from the page cache, so that the next load reads them from the disk (Linux only)."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in folder.glob("*.safetensors"):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
