"""Scores from compiled decoder layers and CUDA graphs: for a server, or for many texts, on a GPU."""

import contextlib
import os
from typing import Any

import bitsandbytes as bnb
import torch
from torch import nn

from stages import TOKENIZERS_CHOSEN
from stages.errors import UserError
from stages.model.cuda_graphs import CapturedPasses, compile_layers
from stages.model.exactness import choose_layout
from stages.model.forward import label_rows, output_head, packed_logits
from stages.model.fsdp import is_sharded
from stages.model.layout import Layout, underlying
from stages.model.packed_attention import FEW_SHAPES, has_varlen, pack
from stages.model.scoring import label_words, scores_of
from stages.text.prompt import Prompt


class FastScores:
    """Scores a batch as `score_batches` does without the vocabulary.

    Args:
        model: packed, on a GPU, in eval mode, with merged adapters or unmerged ones.
        prompt: the prompt, whose prefix all rows share.
    """

    def __init__(self, model: nn.Module, prompt: Prompt):
        self.model, self.shared = model, len(prompt.prefix)
        head = output_head(model).weight
        self.words = label_words(prompt, head.device)
        self.captured = CapturedPasses(self.log_odds, head.device)
        compile_layers(model, True)

    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Log-odds (B, 1) on the GPU. batch: input_ids (B, T) and positions (B, 1), on the CPU."""
        scores = None
        with contextlib.suppress(torch.OutOfMemoryError):
            scores = self.captured(pack(batch, self.shared, varlen=True, **FEW_SHAPES))
        if scores is None:  # outside the handler, whose traceback holds on to the tensors of the failed pass
            self.captured.forget()
            raise torch.OutOfMemoryError(f"no memory for a batch of {len(batch['input_ids'])} text(s)")
        return scores[: len(batch["input_ids"])]

    def log_odds(self, packed: dict[str, Any]) -> torch.Tensor:
        with torch.no_grad(), label_rows(self.model, self.words, vocabulary=False) as has_rows:
            logits = packed_logits(self.model, packed)[:, 0]
            return scores_of(logits if has_rows else logits.float(), self.words, has_rows, vocabulary=False)


def speed_up(model: nn.Module, prompt: Prompt) -> None:
    """Makes `label_scores` of this model use compiled layers and CUDA graphs. Scores move by rounding.

    Raises UserError without a GPU, with sharded layers, for an architecture whose texts are not packed, without the
    attention kernel that takes packed texts (shapes would be many), and in 8 bits: bitsandbytes waits for the GPU in
    such layers, which a graph can't hold.
    """
    layout, head = choose_layout(model, prompt), output_head(model).weight
    if head.device.type != "cuda":
        raise UserError("--profile speed needs a GPU, and found none: leave it out")
    reasons = {
        "its layers are sharded": is_sharded(model),
        f"texts are {layout.value}, not packed": layout is not Layout.PACKED,
        "its weights have 8 bits": any(isinstance(module, bnb.nn.Linear8bitLt) for module in model.modules()),
        "it needs 16 bits and compute capability 8.0": not has_varlen(head.device, head.dtype),
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(f"--profile speed can't be used with this model: {reason}: leave it out")
    if not TOKENIZERS_CHOSEN:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"  # torch's threads have little to do: the GPU computes
    underlying(model).fast_scores = FastScores(model, prompt)  # type: ignore[assignment]
