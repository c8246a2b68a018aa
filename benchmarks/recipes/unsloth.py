"""Unsloth's FastLanguageModel with QLoRA in TRL's SFTTrainer, without and with its checkpointing."""

import contextlib
import importlib

with contextlib.suppress(Exception):  # missing, or no GPU: the recipe's own import raises it again
    importlib.import_module("unsloth")  # before transformers, trl and peft, which it rewrites

from collections.abc import Callable

import torch

from benchmarks.common import require_package
from benchmarks.recipes.setting import CHECKED, Setting
from benchmarks.recipes.stock import lora_config, stock_arguments, stock_collator, stock_loss, stock_rows
from stages.paths import BASE_MODEL

LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def unsloth(setting: Setting):
    """QLoRA without checkpointing."""
    return train_unsloth(setting, checkpointing=False)


def unsloth_checkpointed(setting: Setting):
    """QLoRA with Unsloth's own checkpointing."""
    return train_unsloth(setting, checkpointing=True)


def train_unsloth(setting: Setting, checkpointing: bool) -> tuple[float, Callable]:
    """An SFTTrainer on Unsloth's model; adapters, rows and schedule are those of the other recipes."""
    require_package("unsloth")
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from unsloth import FastLanguageModel

    tokenizer, lora = setting.prompt.tokenizer, lora_config(0.0)
    whole = stock_rows(setting.rows)
    base, _ = FastLanguageModel.from_pretrained(
        str(BASE_MODEL),
        max_seq_length=max(len(row["input_ids"]) for row in whole),
        dtype=torch.bfloat16,
        load_in_4bit=True,
    )
    model = FastLanguageModel.get_peft_model(
        base,
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=LINEAR_LAYERS,
        use_gradient_checkpointing="unsloth" if checkpointing else False,
    )
    loss = stock_loss(model, whole[:CHECKED], stock_collator(tokenizer))
    options = stock_arguments(
        setting,
        dataset_kwargs={"skip_prepare_dataset": True},
        optim="adamw_torch_fused",
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs=None,  # Unsloth has its own way
    )
    trainer = SFTTrainer(
        model,
        SFTConfig(**options),
        train_dataset=Dataset.from_list(whole),
        processing_class=tokenizer,
        callbacks=[setting.watch],
    )
    return loss, trainer.train
