"""The frozen base model's decoder layers sharded over several GPUs by torch's FSDP2 (arXiv:2304.11277).

Each layer is gathered when its turn comes. Every GPU holds the whole adapters and embeddings.
"""

from typing import Any, TypeVar

import bitsandbytes as bnb
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from stages.distributed import world_size
from stages.errors import UserError
from stages.model.device import pick_device
from stages.model.layout import underlying
from stages.model.load import decoder_layers, is_to_be_sharded
from stages.model.patches import name_bytes_float32
from stages.params import Method

Model = TypeVar("Model", bound=nn.Module)  # the base model, with or without adapters


def shard_layers(model: Model, method: Method) -> Model:
    """Shards the decoder layers, where `method` says so and there are several processes.

    From then on all processes must make the same number of passes, since each gathers its layers from all. Layers are
    moved from the CPU's memory one by one, so a GPU holds only one whole layer at a time. Raises UserError for 8-bit
    weights.
    """
    if not is_to_be_sharded(method):
        return model
    base, device = underlying(model), pick_device()
    if any(isinstance(module, bnb.nn.Linear8bitLt) for module in base.modules()):  # from a folder that was saved so
        raise UserError("residency sharded: bitsandbytes' 8-bit weights can't be sharded; choose method qlora or lora")
    embeddings = (base.get_input_embeddings(), base.get_output_embeddings())
    whole: set[Any] = {module.to(device).weight for module in embeddings}
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            whole |= {*layer.lora_A.to(device).parameters(), *layer.lora_B.to(device).parameters()}
    mesh = init_device_mesh(device.type, (world_size(),))
    # All layers are below one root, so that the next is gathered while one computes. The root, too, is sharded again
    # after each pass: only one process saves an adapter, and it would then have to gather alone.
    for layer in decoder_layers(base):
        name_bytes_float32(layer.to(device))
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    fully_shard(base.base_model, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    base.hf_device_map = {"": device}  # type: ignore[assignment]  # accelerate looks at this before it trains
    return model


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())


def passes_to_join(model: nn.Module, own: int, device: torch.device) -> int:
    """How many passes a process must make after its `own`: with sharded layers, all processes make as many passes as
    the one with the most. Call it before the first pass, in all processes."""
    if not is_sharded(model):
        return 0
    most = torch.tensor(own, device=device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return int(most) - own
