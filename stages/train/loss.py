"""The loss that training minimises, and its mean for the log."""

import torch
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
