"""TRL's SFTTrainer with QLoRA: its defaults, and tuned."""

from collections.abc import Callable

from benchmarks.common import require_package
from benchmarks.recipes.setting import CHECKED, Setting
from benchmarks.recipes.stock import (
    TUNED,
    lora_config,
    stock_arguments,
    stock_collator,
    stock_loss,
    stock_model,
    stock_rows,
)


def trl(setting: Setting):
    """QLoRA with checkpointing and TRL's own defaults, trained on the answers only."""
    return train_trl(setting)


def trl_tuned(setting: Setting):
    """QLoRA, tuned: Liger's kernels, batches by length, fused AdamW, no checkpointing."""
    require_package("liger_kernel")
    return train_trl(setting, **TUNED)


def train_trl(setting: Setting, **changes) -> tuple[float, Callable]:
    """An SFTTrainer on rows that are tokenized already; `changes` are arguments of SFTConfig."""
    require_package("trl")
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = setting.prompt.tokenizer
    whole = stock_rows(setting.rows)
    arguments = SFTConfig(**stock_arguments(setting, dataset_kwargs={"skip_prepare_dataset": True}, **changes))
    trainer = SFTTrainer(
        stock_model(setting.chosen.methods["article"]),
        arguments,
        train_dataset=Dataset.from_list(whole),
        processing_class=tokenizer,
        peft_config=lora_config(0.0),
        callbacks=[setting.watch],
    )
    return stock_loss(trainer.model, whole[:CHECKED], stock_collator(tokenizer)), trainer.train
