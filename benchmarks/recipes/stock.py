"""The stock Trainer of transformers with peft: as the article has it, with Liger, and tuned."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

from benchmarks.common import require_package
from benchmarks.recipes.setting import CHECKED, STEPS, Setting
from stages.model.device import computes_bfloat16, pick_device, pick_dtype
from stages.model.load import quantization
from stages.model.patches import keep_packing
from stages.params import Method
from stages.paths import BASE_MODEL

TUNED: dict[str, Any] = {
    "use_liger_kernel": True,
    "train_sampling_strategy": "group_by_length",
    "gradient_checkpointing": False,
    "optim": "adamw_torch_fused",
}


def stock(setting: Setting, **changes):
    """NF4, fused AdamW, neither checkpointing nor dropout."""
    return train_stock(setting, setting.chosen.methods["article"], **changes)


def article(setting: Setting, **changes):
    """The article's recipe: NF4, checkpointing, paged AdamW, dropout 0.2."""
    options: dict[str, Any] = {"optim": "paged_adamw_32bit", "gradient_checkpointing": True, **changes}
    return train_stock(setting, setting.chosen.methods["article"], dropout=0.2, **options)


def liger(setting: Setting):
    """The article's recipe with Liger's kernels, switched on in the Trainer."""
    require_package("liger_kernel")
    return article(setting, use_liger_kernel=True)


def lora_tuned(setting: Setting):
    """LoRA on bfloat16 weights, tuned: Liger's kernels, batches by length, fused AdamW, no checkpointing."""
    require_package("liger_kernel")
    return train_stock(setting, setting.chosen.methods["lora"], **TUNED)


def train_stock(setting: Setting, method: Method, dropout: float = 0.0, **changes) -> tuple[float, Callable]:
    """A stock Trainer with peft that saves nothing; `changes` are arguments of TrainingArguments."""
    model = get_peft_model(stock_model(method), lora_config(dropout))
    whole, collate = stock_rows(setting.rows), stock_collator(setting.prompt.tokenizer)
    loss = stock_loss(model, whole[:CHECKED], collate)
    options = {"gradient_checkpointing": False, "optim": "adamw_torch_fused", **changes}
    if options["gradient_checkpointing"]:
        model.enable_input_require_grads()
    arguments = TrainingArguments(**stock_arguments(setting, **options))
    trainer = transformers.Trainer(model, arguments, collate, whole, callbacks=[setting.watch])
    return loss, trainer.train


def stock_model(method: Method) -> transformers.PreTrainedModel:
    """Loads the base model as most guides do, minus a defect of bitsandbytes that slows some CPUs down.

    A device without bfloat16 computes in float32, as the project's own stages do. Emulated, a step took 50 s.
    """
    device = pick_device()
    dtype = pick_dtype("auto", device)
    model = AutoModelForCausalLM.from_pretrained(
        BASE_MODEL,
        dtype=dtype,
        device_map={"": device},
        quantization_config=quantization(method, dtype),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    keep_packing(model)
    return model


def lora_config(dropout: float) -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")


def stock_arguments(setting: Setting, **changes) -> dict[str, Any]:
    """Arguments of TrainingArguments, or of TRL's SFTConfig."""
    return {
        "output_dir": setting.folder,
        "per_device_train_batch_size": setting.batch,
        "gradient_accumulation_steps": 1,  # Unsloth's default is 2
        "max_steps": STEPS,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "cosine",
        "bf16": torch.cuda.is_available() and computes_bfloat16(pick_device()),
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 10,
        **changes,
    }


def stock_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns rows of loss `completion` into what a stock Trainer reads: whole sequences, label -100 over the prompt."""
    whole = []
    for row in rows:
        answer = row["labels"]
        ids = row["input_ids"] + answer[-1:]
        whole.append({"input_ids": ids, "labels": [-100] * (len(ids) - len(answer)) + answer})
    return whole


def stock_collator(tokenizer: PreTrainedTokenizerBase) -> DataCollatorForSeq2Seq:
    """Pads prompts, masks and labels (with -100) on the right."""
    tokenizer.padding_side = "right"
    return DataCollatorForSeq2Seq(tokenizer)


@torch.no_grad()
def stock_loss(model: torch.nn.Module, rows: list[dict[str, Any]], collate: DataCollatorForSeq2Seq) -> float:
    """Mean loss over the answers' tokens, from the logits of all positions, without dropout."""
    model.eval()
    batch = {name: tensor.to(model.device) for name, tensor in collate(rows).items()}
    labels = batch.pop("labels")[:, 1:]
    logits = model(**batch).logits[:, :-1].float()
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100).item()
