"""The one scorer: how sure the model is that a text is fraud, in a single forward pass a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from stages import UserError, rank
from stages.model.answer import answer_logits
from stages.model.exactness import choose_layout
from stages.model.shard import is_sharded
from stages.model.share import gathered, own_share, passes_to_join
from stages.text.batches import Collator, TokenBudgetBatches
from stages.text.prompt import Prompt


@dataclass(frozen=True)
class LabelScores:
    """log_probability, float64 of shape (N, 2): of the label words ` false` (column 0) and ` true` (column 1) as the
    next token, among the whole vocabulary."""

    log_probability: np.ndarray

    @property
    def log_odds(self) -> np.ndarray:
        """Of fraud against not fraud, shape (N,)."""
        return self.log_probability[:, 1] - self.log_probability[:, 0]

    def loss(self, labels: Sequence[bool]) -> float:
        """Mean negative log-probability of the right label word: the loss that training minimises."""
        return float(-self.log_probability[np.arange(len(labels)), np.asarray(labels, dtype=int)].mean())


def label_scores(
    model: nn.Module, prompt: Prompt, texts: Sequence[str], max_tokens_per_batch: int, title: str
) -> LabelScores:
    """Scores texts, longest first, in batches of at most `max_tokens_per_batch` padded tokens.

    The model is put in eval mode and left in the mode it came in. Shows a progress bar named `title`. Several processes
    score every so many-th text each, and all get all scores. A batch that does not fit in memory is halved.
    """
    choose_layout(model, prompt)
    rows = [{"input_ids": prompt.encode(ids)} for ids in prompt.tokenize(list(own_share(texts)))]
    batches = TokenBudgetBatches([len(row["input_ids"]) for row in rows], max_tokens_per_batch)
    collate = Collator(prompt.tokenizer.pad_token_id)
    device = next(model.parameters()).device
    words = torch.tensor([prompt.label_ids[False], prompt.label_ids[True]], device=device)
    scored: list[tuple[list[int], torch.Tensor]] = []  # rows of a batch, and their scores on the device
    was_training = model.training
    model.eval()
    todo = list(batches)[::-1]
    to_join = passes_to_join(model, len(todo), device)
    # no_grad, not inference_mode: tensors that layers keep for later must stay usable in training.
    with torch.no_grad(), tqdm(total=len(rows), desc=title, unit="text", disable=rank() > 0) as progress:
        while todo:
            batch = todo.pop()
            fits = True
            try:
                inputs = collate([rows[row] for row in batch])
                logits = answer_logits(model, inputs, len(prompt.prefix))[:, 0]  # (B, vocabulary)
                scored.append((batch, logits.float().log_softmax(-1).index_select(1, words)))
                progress.update(len(batch))
            except torch.OutOfMemoryError:
                fits = False
            if not fits:  # outside the handler, whose traceback holds on to tensors
                if is_sharded(model):
                    raise UserError(
                        f"a batch of {len(batch)} text(s) does not fit in the GPU's memory, and can't be halved with "
                        "residency sharded: lower train.eval_max_tokens_per_batch or evaluate.max_tokens_per_batch (of "
                        "predict, --max-tokens-per-batch)"
                    )
                todo += halves(batch, len(rows[batch[0]]["input_ids"]))
                torch.cuda.empty_cache()
        for _ in range(to_join):
            answer_logits(model, collate([{"input_ids": prompt.encode([])}]), len(prompt.prefix))
    model.train(was_training)
    result = torch.zeros(len(rows), 2, dtype=torch.float64)
    for batch, scores in scored:  # a GPU is waited for here only
        result[batch] = scores.double().cpu()
    return LabelScores(gathered(result, len(texts), device).numpy())


def halves(batch: list[int], tokens: int) -> list[list[int]]:
    """A batch that did not fit in memory in two. Raises UserError for a single row."""
    if len(batch) == 1:
        raise UserError(
            f"a text of {tokens} tokens does not fit in the GPU's memory: lower prompt.max_length, or choose method "
            "qlora"
        )
    return [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
