"""Low-rank adapters (LoRA, arXiv:2106.09685) on a frozen base model."""

from pathlib import Path

import peft
import torch
from transformers import PreTrainedModel

from stages.params import Train


def attach_adapter(model: PreTrainedModel, train: Train) -> peft.PeftModel:
    """Adds fresh adapters in float32, B zero, so that the model's output is the base model's until it is trained.

    `all-linear` means the linear layers of the blocks; the output head stays as it is. The first weights follow
    `train.seed`.
    """
    torch.manual_seed(train.seed)
    config = peft.LoraConfig(
        r=train.r,
        lora_alpha=train.lora_alpha,
        lora_dropout=train.lora_dropout,
        target_modules=train.target_modules,
        task_type=peft.TaskType.CAUSAL_LM,
    )
    return peft.get_peft_model(model, config)


def load_adapter(model: PreTrainedModel, path: Path) -> peft.PeftModel:
    """Puts a trained adapter on the base model, for scoring; weights from safetensors only."""
    return peft.PeftModel.from_pretrained(model, path, is_trainable=False, use_safetensors=True).eval()
