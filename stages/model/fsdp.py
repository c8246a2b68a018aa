"""The frozen base model's blocks split over several GPUs (torch's FSDP2, arXiv:2304.11277), each gathered when its turn
comes; adapters and embeddings stay whole on each."""

import bitsandbytes as bnb
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from stages.distributed import world_size
from stages.errors import UserError
from stages.model.device import pick_device
from stages.model.load import decoder_layers, is_to_be_sharded
from stages.params import Method


def shard_layers(model: PeftModel, method: Method) -> PeftModel:
    """Splits the blocks, where `method` says so and there are several processes, which from then on must make the same
    number of passes: each of them gathers its blocks from all. They come from the CPU's memory one after another, so
    that a GPU holds one of them in full at a time. Raises UserError for 8-bit weights."""
    if not is_to_be_sharded(method):
        return model
    base, device = model.get_base_model(), pick_device()
    if any(isinstance(module, bnb.nn.Linear8bitLt) for module in base.modules()):  # of a folder that was saved so
        raise UserError("residency sharded: bitsandbytes' 8-bit weights can't be split; choose method qlora or lora")
    embeddings = (base.get_input_embeddings(), base.get_output_embeddings())
    whole = {module.to(device).weight for module in embeddings}
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            whole |= {*layer.lora_A.to(device).parameters(), *layer.lora_B.to(device).parameters()}
    mesh = init_device_mesh(device.type, (world_size(),))
    # All blocks below one root, so that the next is gathered while one computes. The root, too, is split again after
    # each pass: the process that saves an adapter does so, and would then gather alone.
    for block in decoder_layers(base):
        name_bytes_float32(block.to(device))
        fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    fully_shard(base.base_model, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    base.hf_device_map = {"": device}  # which accelerate looks at before it trains
    return model


def name_bytes_float32(block: nn.Module) -> None:
    """FSDP2 splits floating-point numbers, so 4-bit weights become the same bytes under that name, as bitsandbytes'
    quant_storage has them; what belongs to them is found in the module.

    In a group with parameters of other types FSDP2 copies all as bytes, in one of float32 alone as what they are. Not
    bfloat16: torch's _foreach_copy_ on GPUs makes all its NaNs one, and some packed bytes look like NaNs
    (bitsandbytes issue 1945; seen with torch 2.11 as losses that were .04 off).
    """
    for module in block.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.weight.data = module.weight.data.flatten().view(torch.float32).unsqueeze(1)


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())


def passes_to_join(model: nn.Module, own: int, device: torch.device) -> int:
    """How many passes a process must make after its `own`: where blocks are split it gathers them with all others, as
    often as the one with most. To be asked before the first pass, since processes ask each other."""
    if not is_sharded(model):
        return 0
    most = torch.tensor(own, device=device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return int(most) - own
