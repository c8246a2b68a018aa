"""The frozen base model's blocks split over several GPUs (torch's FSDP2, arXiv:2304.11277), each gathered when its turn
comes; adapters and embeddings stay whole on each."""

import bitsandbytes as bnb
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from stages import UserError, world_size
from stages.model.load import decoder_layers
from stages.params import Method


def shard_blocks(model: PeftModel, method: Method) -> PeftModel:
    """Splits the blocks, where `method` says so and there are several processes, which from then on must make the same
    number of passes: each of them gathers its blocks from all. Raises UserError for 8-bit weights."""
    if method.residency != "sharded" or world_size() == 1:
        return model
    base = model.get_base_model()
    for module in base.modules():
        if isinstance(module, bnb.nn.Linear8bitLt):  # of a folder that was saved so
            raise UserError(
                "residency sharded: bitsandbytes' 8-bit weights can't be split; choose method qlora or lora"
            )
        if isinstance(module, bnb.nn.Linear4bit):
            # The same bytes in the type of the rest: FSDP2 splits floating-point numbers of one type
            # (bitsandbytes' bnb_4bit_quant_storage). bitsandbytes finds what belongs to them in the module.
            module.weight.data = module.weight.data.flatten().view(base.dtype).unsqueeze(1)
    whole = {base.get_input_embeddings().weight, base.get_output_embeddings().weight}
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            whole |= {*layer.lora_A.parameters(), *layer.lora_B.parameters()}
    mesh = init_device_mesh(base.device.type, (world_size(),))
    # All blocks below one root, so that the next is gathered while one computes. The root, too, is split again after
    # each pass: the process that saves an adapter does so, and would then gather alone.
    for module in (*decoder_layers(base), base.base_model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    return model


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())
