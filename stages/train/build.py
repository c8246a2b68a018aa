"""Puts together what a training needs: rows, prompt, model, trainer."""

import dataclasses

import torch

from stages.model.device import reset_peak_memory
from stages.model.fsdp import shard_layers
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import attach_adapter
from stages.params import Params
from stages.paths import PROCESSED
from stages.text.example import read_examples
from stages.text.prompt import build_prompt, report_truncated, tells_the_date
from stages.train.arguments import training_arguments
from stages.train.dataset import training_rows
from stages.train.resume import ResumeCheckpoints
from stages.train.trainer import LabelTrainer


def build_trainer(
    chosen: Params, device: torch.device, resume_checkpoints: ResumeCheckpoints, rendered: dict[str, str] | None
) -> LabelTrainer:
    """A trainer on the base model and the prepared examples.

    Args:
        chosen: params.yaml.
        device: to train on.
        resume_checkpoints: where resume checkpoints are kept.
        rendered: the prompt that a resumed training began with. A chat template may write today's date, and a training
            may run past midnight. None renders it now.
    """
    examples, valid = (read_examples(PROCESSED / f"{name}.jsonl") for name in ("train", "valid"))
    tokenizer = load_tokenizer()
    prompt = build_prompt(tokenizer, **dataclasses.asdict(chosen.prompt), rendered=rendered)
    if tells_the_date(tokenizer):
        print("train: the base model's chat template writes the date; all later stages use the prompt of this training")
    rows, truncated = training_rows(examples, prompt, chosen.train.loss)
    report_truncated("train", "train", truncated, len(rows), prompt.truncation_side)
    reset_peak_memory(device)
    model = shard_layers(attach_adapter(load_base(chosen.method), chosen.train), chosen.method)
    arguments = training_arguments(chosen.train, device, resume_checkpoints.folder)
    trainer = LabelTrainer(model, arguments, chosen.train, rows, valid, prompt, resume_checkpoints)
    trainer.facts["rows_truncated"] = truncated
    return trainer
