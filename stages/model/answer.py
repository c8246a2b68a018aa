"""The logits that decide: those of the answer's tokens, and no others."""

import torch
from torch import nn


def answer_logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """One forward pass; logits of shape (B, K, vocabulary) at positions (B, K), those before the answer's tokens.

    The output head sees the hidden states of these positions only: over a vocabulary of 151,936, 16 x 427 tokens of
    logits would take 4 GB in float32. A hook picks them, so that the model's own forward stays in charge (of adapters,
    of checkpointing, of soft-capped logits). Rows are padded on the right, where causal attention can't look, so no
    mask is needed and the fastest attention kernels serve.
    """
    rows = torch.arange(len(batch["input_ids"]), device=batch["input_ids"].device).unsqueeze(1)
    head = getattr(model, "module", model).get_output_embeddings()
    pick = head.register_forward_pre_hook(lambda head, hidden: (hidden[0][rows, batch["positions"]],))
    try:
        return model(input_ids=batch["input_ids"], use_cache=False).logits
    finally:
        pick.remove()
