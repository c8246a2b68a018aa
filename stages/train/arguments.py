"""The section `train` of params.yaml as the Trainer's arguments, and the profiles that say how a pass is computed."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments

from stages.params import Params, Train


@dataclass(frozen=True)
class Profile:
    """How a forward and backward pass is computed.

    captured: as a CUDA graph (on a GPU only).
    compiled: with compiled decoder layers (on a GPU only).
    checkpointing: only each layer's input is kept; its activations are computed again in the backward pass. Compiled
        layers do that by themselves, without the products whose results no gradient needs.
    max_tokens: a larger batch is cut into micro-batches of about this many tokens; None for no bound.
    """

    captured: bool = False
    compiled: bool = False
    checkpointing: bool = False
    max_tokens: int | None = None


PROFILES = {
    "plain": Profile(),
    "speed": Profile(captured=True, compiled=True),
    "memory": Profile(captured=True, compiled=True, checkpointing=True, max_tokens=2048),
    "auto": Profile(captured=True, compiled=True),  # speed; memory from the first batch on that does not fit
}


def checkpoints_activations(train: Train) -> bool:
    """Whether activations are checkpointed from the first step on."""
    return train.gradient_checkpointing or PROFILES[train.profile].checkpointing


def training_arguments(train: Train, device: torch.device, output_dir: Path) -> TrainingArguments:
    """The Trainer's arguments for the section `train` of params.yaml, whose keys have the Trainer's names.

    `Passes` checkpoints activations: the Trainer would do so around compiled layers, too.
    """
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=train.num_train_epochs,
        per_device_train_batch_size=train.per_device_train_batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim="adamw_torch_fused" if train.optim == "auto" else train.optim,
        eval_strategy="steps",
        eval_steps=share_or_steps(train.eval_steps),
        logging_steps=train.logging_steps,
        save_strategy="steps",  # of resume checkpoints; KeepAdapter writes the checkpoints of evaluations
        save_steps=share_or_steps(train.save_steps),
        restore_callback_states_from_checkpoint=True,  # early stopping's count
        average_tokens_across_devices=False,  # LabelTrainer.get_batch_samples does
        logging_nan_inf_filter=False,  # NanGuard stops instead
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        seed=train.seed,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        disable_tqdm=True,  # PrintProgress prints whole lines, which a log can hold
        report_to="none",
    )
    arguments._n_gpu = 1  # one process uses one GPU; the Trainer would spread a batch over all by nn.DataParallel
    return arguments


def share_or_steps(value: float) -> float | int:
    """Below 1 a share of the training, else a whole number of steps, which the Trainer tells apart by type."""
    return value if value < 1 else int(value)


def report_replaced(chosen: Params) -> None:
    """Prints which keys of params.yaml's sections the method replaces: their values there have no effect."""
    for section, values in (("train", chosen.method.train), ("prompt", chosen.method.prompt)):
        for key, value in values.items():
            print(f"train: {section}.{key} is {value!r}, by methods.{chosen.method_name}.{section}")
