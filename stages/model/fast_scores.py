"""Scores from compiled decoder layers and CUDA graphs: for a server, or for many texts, on a GPU."""

import os
from typing import Any

import torch
from torch import nn

from stages import TOKENIZERS_CHOSEN
from stages.errors import UserError
from stages.model.cuda_graphs import CapturedPasses, can_compile, compile_layers, waits_for_gpu
from stages.model.device import OutOfMemory
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
        packed = pack(batch, self.shared, varlen=True, **FEW_SHAPES)
        for _ in range(2):  # the second time without the graphs of other shapes
            with OutOfMemory():
                return self.captured(packed)[: len(batch["input_ids"])]
            self.captured.forget()
        raise torch.OutOfMemoryError(f"no memory for a batch of {len(batch['input_ids'])} text(s)")

    def log_odds(self, packed: dict[str, Any]) -> torch.Tensor:
        with torch.no_grad(), label_rows(self.model, self.words, vocabulary=False) as has_rows:
            logits = packed_logits(self.model, packed)[:, 0]
            return scores_of(logits if has_rows else logits.float(), self.words, has_rows, vocabulary=False)


def speed_up(model: nn.Module, prompt: Prompt) -> None:
    """Makes `label_scores` of this model use compiled layers and CUDA graphs. Scores move by rounding.

    Raises UserError without a GPU, with sharded layers, for an architecture whose texts are not packed, without the
    attention kernel that takes packed texts (shapes would be many), where passes wait for the GPU, and without what
    torch's compiler needs.
    """
    layout, head = choose_layout(model, prompt), output_head(model).weight
    if head.device.type != "cuda":
        raise UserError("--profile speed needs a GPU, and found none: leave it out")
    waits = waits_for_gpu(model)
    reasons = {
        "its layers are sharded": is_sharded(model),
        f"texts are {layout.value}, not packed": layout is not Layout.PACKED,
        str(waits): waits is not None,
        "it needs 16 bits and compute capability 8.0": not has_varlen(head.device, head.dtype),
        "it needs Triton, Python.h, and gcc or clang": not can_compile(),
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(f"--profile speed can't be used with this model: {reason}: leave it out")
    if not TOKENIZERS_CHOSEN:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"  # torch's threads have little to do: the GPU computes
    underlying(model).fast_scores = FastScores(model, prompt)  # type: ignore[assignment]
