"""This project's trainer under each of its profiles."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.recipes.setting import CHECKED, STEPS, Recipe, Setting
from stages.model.device import pick_device
from stages.model.fsdp import shard_layers
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.params import Profile
from stages.train.arguments import training_arguments
from stages.train.resume import ResumeCheckpoints
from stages.train.trainer import LabelTrainer


def ours(method: str, profile: Profile) -> Recipe:
    """The recipe of a method and a train.profile of params.yaml."""

    def recipe(setting: Setting) -> tuple[float, Callable]:
        chosen, rows, folder = setting.chosen, setting.rows, Path(setting.folder)
        train = dataclasses.replace(
            chosen.train, per_device_train_batch_size=setting.batch, max_tokens_per_batch=None, lora_dropout=0.0,
            train_sampling_strategy="random", loss="completion", save_steps=STEPS, eval_steps=STEPS,
            logging_steps=10, gradient_accumulation_steps=1, r=16, lora_alpha=32, profile=profile,
        )  # fmt: skip
        model = shard_layers(attach_adapter(load_base(chosen.methods[method]), train), chosen.methods[method])
        arguments = training_arguments(train, pick_device(), folder)
        arguments.max_steps, arguments.warmup_steps = STEPS, 0
        trainer = LabelTrainer(model, arguments, train, rows, [], setting.prompt, ResumeCheckpoints(folder, 1))
        trainer.add_callback(setting.watch)
        with torch.no_grad():
            model.eval()
            loss = trainer.compute_loss(model, trainer.data_collator(rows[:CHECKED])).item()
        return loss, trainer.train

    return recipe


plain = ours("qlora", profile="plain")
speed = ours("qlora-dequantized", profile="speed")
speed_nf4 = ours("qlora", profile="speed")
speed_lora = ours("lora", profile="speed")
memory = ours("qlora", profile="memory")
