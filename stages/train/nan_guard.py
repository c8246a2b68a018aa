"""Stops training at a loss or a gradient that is not a finite number, without making the CPU wait for the GPU."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from stages.errors import UserError
from stages.model.device import Arriving


@dataclass(frozen=True)
class Noted:
    """A number of an optimizer step, while it is copied to the CPU, and the rows that it was computed from."""

    name: str
    step: int
    rows: list[int]
    value: Arriving


class NanGuard(TrainerCallback):
    """Notes numbers as they are computed and checks them one step later, when the GPU has long computed them.

    Where a step is logged, evaluated or saved, its own numbers are checked first. So this callback must come behind
    those that decide about that.
    """

    def __init__(self, rows: Sequence[dict[str, Any]]):
        """rows: the training rows; an error names the `source` of those in a step."""
        self.rows = rows
        self.noted: deque[Noted] = deque()
        self.step_rows: list[int] = []  # of the batches since the last optimizer step

    def note_loss(self, loss: torch.Tensor, step: int, rows: list[int]) -> None:
        """loss: of a batch, a tensor of one number. rows: their numbers."""
        self.step_rows += rows
        self.noted.append(Noted("loss", step, rows, Arriving.sent(loss)))

    def note_norm(self, norm: torch.Tensor, step: int) -> None:
        """norm: of the step's gradient, a tensor of one number."""
        self.noted.append(Noted("norm of the gradient", step, self.step_rows, Arriving.sent(norm)))
        self.step_rows = []

    def on_step_end(self, args, state, control, **kwargs):
        kept = control.should_log or control.should_evaluate or control.should_save
        self.require_finite(state.global_step if kept else state.global_step - 1)

    def require_finite(self, up_to_step: int) -> None:
        """Waits for the numbers of the steps up to that one. Raises UserError where one is not finite."""
        while self.noted and self.noted[0].step <= up_to_step:
            noted = self.noted.popleft()
            value = noted.value.read()
            if not torch.isfinite(value).all():
                sources = ", ".join(self.rows[row]["source"] or f"row {row}" for row in noted.rows)
                raise UserError(
                    f"the {noted.name} is {value.item()} at step {noted.step}, on the texts {sources}; expected a "
                    "finite number: lower train.learning_rate, or set the method's dtype to float32. Earlier "
                    "checkpoints are whole; nothing of this step was kept"
                )


def require_finite_parameters(model: nn.Module, step: int) -> None:
    """Raises UserError where a trained parameter holds a number that is not finite."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise UserError(
                f"{name} holds a number that is not finite after step {step}: lower train.learning_rate. Earlier "
                "checkpoints are whole"
            )
