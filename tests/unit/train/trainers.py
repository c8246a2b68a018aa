"""A trainer of the tiny model, and ways to end it."""

import torch
from transformers import TrainerCallback

from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.params import Train
from stages.train.arguments import training_arguments
from stages.train.dataset import training_rows
from stages.train.outputs import split_history
from stages.train.resume import ResumeCheckpoints
from stages.train.trainer import LabelTrainer
from tests.conftest import METHODS

CPU = torch.device("cpu")


def trainer_for(
    base_folder, prompt, examples, train: Train, folder, method=METHODS["qlora"], device=CPU
) -> LabelTrainer:
    rows, _ = training_rows(examples[:32], prompt, train.loss)
    model = attach_adapter(load_base(method, base_folder, device), train)
    arguments = training_arguments(train, device, folder)
    return LabelTrainer(model, arguments, train, rows, examples[32:], prompt, ResumeCheckpoints(folder, 2))


def valid_history(trainer: LabelTrainer) -> list[dict]:
    return split_history(trainer.state.log_history)[1]


class Killed(BaseException):
    """No error that anything would handle."""


class At(TrainerCallback):
    """Does something at the end of a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def kill():
    raise Killed
