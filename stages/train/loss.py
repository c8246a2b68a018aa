"""The loss that training minimises, and its mean for the log."""

import torch
from accelerate import Accelerator
from torch.nn import functional

from stages.text.batching import IGNORED


def answer_loss(logits: torch.Tensor, labels: torch.Tensor, tokens: torch.Tensor | int) -> torch.Tensor:
    """Mean cross entropy over the vocabulary, in float32, of the answers' tokens.

    The sum over a batch is divided by the answer tokens of the whole optimizer step, so the sum over the step's batches
    is its mean, however the step is cut into batches.

    Args:
        logits: of shape (B, K, vocabulary).
        labels: of shape (B, K), with IGNORED where nothing is to be learned.
        tokens: number of labels of the optimizer step that are not IGNORED.
    """
    summed = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORED
    )
    return summed / tokens


class LossLog:
    """The losses of batches since the last line of the log.

    They stay on the device until a line is written. A resume checkpoint keeps them, so that a resumed training writes
    the lines of an uninterrupted one.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.losses: list[torch.Tensor] = []  # this process's part of each
        self.logged_step = 0  # the optimizer step of the last line

    def note(self, loss: torch.Tensor) -> None:
        self.losses.append(loss.detach())

    def mean(self, step: int) -> float:
        """The mean over the steps since the last line, for a new line at `step`."""
        total = torch.stack(self.losses).double().sum().to(self.accelerator.device)
        mean = float(self.accelerator.reduce(total, "sum")) / (step - self.logged_step)
        self.losses, self.logged_step = [], step
        return mean

    def all_losses(self) -> list[float]:
        """The losses since the last line, each added up over processes."""
        if not self.losses:
            return []
        return self.accelerator.reduce(torch.stack(self.losses), "sum").tolist()

    def restore(self, losses: list[float], logged_step: int) -> None:
        """Puts back what `all_losses` gave: each process takes an equal part of each."""
        parts = [loss / self.accelerator.num_processes for loss in losses]
        self.losses = [torch.tensor(part, device=self.accelerator.device) for part in parts]
        self.logged_step = logged_step
