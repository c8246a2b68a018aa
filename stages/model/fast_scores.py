"""Scores from compiled decoder layers and CUDA graphs: for a server, or for many texts, on a GPU."""

from typing import Any

import torch
from torch import nn

from stages.errors import UserError
from stages.model.cuda_graphs import CapturedPasses, compile_layers
from stages.model.exactness import choose_layout
from stages.model.forward import label_rows, output_head, packed_logits
from stages.model.fsdp import is_sharded
from stages.model.layout import Layout, underlying
from stages.model.packed_attention import FEW_SHAPES, has_varlen, pack
from stages.model.scoring import scores_of
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
        self.words = torch.tensor([prompt.label_ids[False], prompt.label_ids[True]], device=head.device)
        self.varlen = has_varlen(head.device, head.dtype)
        self.captured = CapturedPasses(self.log_odds, head.device)
        compile_layers(model, True)

    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Log-odds (B, 1) on the GPU. batch: input_ids (B, T) and positions (B, 1), on the CPU."""
        try:
            scores = self.captured(pack(batch, self.shared, self.varlen, **FEW_SHAPES))
        except torch.OutOfMemoryError:
            self.captured.forget()
            raise
        return scores[: len(batch["input_ids"])]

    def log_odds(self, packed: dict[str, Any]) -> torch.Tensor:
        with torch.no_grad(), label_rows(self.model, self.words, vocabulary=False) as has_rows:
            logits = packed_logits(self.model, packed)[:, 0]
            return scores_of(logits if has_rows else logits.float(), self.words, has_rows, vocabulary=False)


def speed_up(model: nn.Module, prompt: Prompt) -> None:
    """Makes `label_scores` of this model use compiled layers and CUDA graphs. Scores move by rounding.

    Raises UserError without a GPU, with sharded layers, and for an architecture whose texts are not packed.
    """
    layout = choose_layout(model, prompt)
    if output_head(model).weight.device.type != "cuda":
        raise UserError("--profile speed needs a GPU, and found none: leave it out")
    if is_sharded(model) or layout is not Layout.PACKED:
        why = "its layers are sharded" if is_sharded(model) else f"texts are {layout.value}, not packed"
        raise UserError(f"--profile speed can't be used with this model: {why}: leave it out")
    underlying(model).fast_scores = FastScores(model, prompt)  # type: ignore[assignment]
