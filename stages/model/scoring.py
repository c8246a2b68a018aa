"""The one scorer: how sure the model is that each text is fraud, from a single forward pass for each batch."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from stages.distributed import add_over_processes, local_shard, rank
from stages.errors import UserError
from stages.model.device import Arriving, OutOfMemory
from stages.model.exactness import choose_layout
from stages.model.forward import completion_logits, label_rows, pinned
from stages.model.fsdp import is_sharded, passes_to_join
from stages.model.layout import underlying
from stages.text.batching import Collator, TokenBudgetBatches
from stages.text.prompt import Prompt

# Increased when the arithmetic of a score changes, but not for rounding, as by another processor or attention kernel.
# models/selected records it, since its threshold fits such scores.
# 1: differences of log-probabilities in the base's dtype. 2: the label words' rows of the head in float64, by windows.
SCORING = 2
# In bfloat16, rounding makes a score depend on the other texts of its batch. Batches are cut from windows of this many
# rows, in the order of the file, so evaluate and predict get the same scores for a file with the same token budget.
WINDOW = 2048


@dataclass(frozen=True)
class LabelScores:
    """Scores of N texts.

    log_odds: float64 of shape (N,), of the label word ` true` against ` false` as the next token.
    truncated: bool of shape (N,), whether the text was too long for the prompt and was truncated.
    log_probability: float64 of shape (N, 2), of ` false` (column 0) and ` true` (column 1) among the whole vocabulary;
        None where it was not asked for.
    """

    log_odds: np.ndarray
    truncated: np.ndarray
    log_probability: np.ndarray | None = None

    def loss(self, labels: Sequence[bool]) -> float:
        """Mean negative log-probability of the correct label word, the loss that training minimises: among the whole
        vocabulary where it was scored, else among the two label words."""
        if self.log_probability is None:
            return float(np.logaddexp(0, np.where(labels, -self.log_odds, self.log_odds)).mean())
        return float(-self.log_probability[np.arange(len(labels)), np.asarray(labels, dtype=int)].mean())


def label_scores(
    model: nn.Module,
    prompt: Prompt,
    texts: Sequence[str],
    max_tokens_per_batch: int,
    title: str,
    vocabulary: bool = False,
) -> LabelScores:
    """Scores texts in windows of WINDOW rows, the longest of a window first.

    The model is scored in eval mode and returns to the mode it was in. With several processes, the rows of a window are
    distributed over them, and all get all scores. A batch that does not fit in memory is halved.

    Args:
        model: the base model with adapters.
        prompt: the prompt around each text.
        texts: N texts, in the order of their file.
        max_tokens_per_batch: maximum of padded tokens in a batch.
        title: title of the progress bar; empty for no bar.
        vocabulary: whether to compute log-probabilities too, which needs the head's product for the whole vocabulary.

    Returns scores of all N texts. Raises UserError for a text that does not fit in the GPU's memory.
    """
    return start_scores(model, prompt, texts, max_tokens_per_batch, title, vocabulary)()


def start_scores(
    model: nn.Module,
    prompt: Prompt,
    texts: Sequence[str],
    max_tokens_per_batch: int,
    title: str,
    vocabulary: bool = False,
) -> Callable[[], LabelScores]:
    """Queues what `label_scores` computes, and returns a function that waits for it and for nothing queued later.

    So a GPU can score texts while the CPU writes those before them. A CPU has scored them when this returns.
    """
    choose_layout(model, prompt)
    hidden = rank() > 0 or not title
    numbers = [list(local_shard(range(len(texts))[first : first + WINDOW])) for first in range(0, len(texts), WINDOW)]
    device = next(model.parameters()).device
    found = torch.zeros(len(texts), 4, dtype=torch.float64)  # log-odds, log-probabilities, truncated
    scored: list[tuple[list[int], torch.Tensor]] = []
    was_training = model.training
    model.eval()
    # no_grad, not inference_mode: tensors that layers keep for later must stay usable in training.
    with torch.no_grad(), tqdm(total=sum(map(len, numbers)), desc=title, unit="text", disable=hidden) as progress:
        for window, tokens in tokenized(prompt, texts, numbers):
            found[window, 3] = torch.tensor([float(len(ids) > prompt.room) for ids in tokens], dtype=torch.float64)
            rows = {number: {"input_ids": prompt.encode(ids)} for number, ids in zip(window, tokens, strict=True)}
            batches = batches_of(window, rows, max_tokens_per_batch)
            scored += score_batches(model, prompt, rows, batches, vocabulary, progress)
    model.train(was_training)
    arriving = Arriving.sent(add_over_processes(placed(found, scored, device)))

    def read() -> LabelScores:
        log_odds, *log_probability, truncated = arriving.read().numpy().T  # the CPU waits for the GPU only here
        return LabelScores(log_odds, truncated > 0, np.stack(log_probability, axis=1) if vocabulary else None)

    return read


def placed(found: torch.Tensor, scored: list[tuple[list[int], torch.Tensor]], device: torch.device) -> torch.Tensor:
    """`found`, float64 of shape (N, 4) on the CPU, on the device, with the scores of each batch in its rows' first
    columns. Waits for nothing."""
    found = pinned(found, device).to(device, non_blocking=True)
    if scored:
        rows = torch.tensor([number for batch, _ in scored for number in batch])
        scores = torch.cat([scores for _, scores in scored]).double()
        found[pinned(rows, device).to(device, non_blocking=True), : scores.shape[1]] = scores
    return found


def tokenized(
    prompt: Prompt, texts: Sequence[str], windows: list[list[int]]
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Yields each window's row numbers and the token ids of their whole texts. A thread tokenizes the next window while
    the caller works on one."""
    with ThreadPoolExecutor(1) as pool:
        jobs = (pool.submit(prompt.tokenize, [texts[number] for number in window]) for window in windows)
        job = next(jobs, None)
        for window in windows:
            assert job is not None
            tokens, job = job.result(), next(jobs, None)
            yield window, tokens


def require_finite(log_odds: np.ndarray, sources: Sequence[str]) -> None:
    """Raises UserError where a score is not finite: by a threshold, NaN would be classified as not fraud.

    Args:
        log_odds: scores of N texts.
        sources: file and line of each text.
    """
    bad = np.flatnonzero(~np.isfinite(log_odds))
    if len(bad):
        raise UserError(
            f"{sources[bad[0]]}: the model's score is {log_odds[bad[0]]}; expected a finite number. The method's dtype "
            "may not hold the model's activations: train with dtype bfloat16 or float32"
        )


def batches_of(window: list[int], rows: dict[int, dict], max_tokens: int) -> list[list[int]]:
    """The row numbers of a window, in batches of similar lengths."""
    sampler = TokenBudgetBatches([len(rows[number]["input_ids"]) for number in window], max_tokens)
    return [[window[index] for index in batch] for batch in sampler]


def score_batches(
    model: nn.Module, prompt: Prompt, rows: dict[int, dict], batches: list[list[int]], vocabulary: bool, progress: tqdm
) -> list[tuple[list[int], torch.Tensor]]:
    """Scores batches one after another; halves one that does not fit in memory.

    Args:
        model: the base model with adapters, in eval mode.
        prompt: the prompt, whose prefix all rows share.
        rows: model input by row number.
        batches: row numbers of each batch.
        vocabulary: whether to compute the label words' log-probabilities too.
        progress: a bar that counts rows.

    Returns row numbers of each batch with its scores on the device, of shape (B, 1) or, with `vocabulary`, (B, 3).
    """
    collate = Collator(prompt.tokenizer.pad_token_id)
    device = next(model.parameters()).device
    words = label_words(prompt, device)
    scored: list[tuple[list[int], torch.Tensor]] = []
    todo = batches[::-1]
    to_join = passes_to_join(model, len(todo), device)
    fast = None if vocabulary else getattr(underlying(model), "fast_scores", None)  # see fast_scores.py
    with label_rows(model, words, vocabulary) as has_rows:
        while todo:
            batch = todo.pop()
            fits = False
            with OutOfMemory():
                inputs = collate([rows[number] for number in batch])
                if fast:
                    scored.append((batch, fast(inputs)))
                else:
                    logits = completion_logits(model, inputs, len(prompt.prefix))[:, 0]
                    logits = logits if has_rows else logits.float()
                    scored.append((batch, scores_of(logits, words, has_rows, vocabulary)))
                progress.update(len(batch))
                fits = True
            if not fits:
                require_halving(model, len(batch))
                todo += halves(batch, len(rows[batch[0]]["input_ids"]))
                torch.cuda.empty_cache()
        for _ in range(to_join):
            completion_logits(model, collate([{"input_ids": prompt.encode([])}]), len(prompt.prefix))
    return scored


def label_words(prompt: Prompt, device: torch.device) -> torch.Tensor:
    """Ids (2,) of the label words, false first."""
    words = torch.tensor([prompt.label_ids[False], prompt.label_ids[True]])
    return pinned(words, device).to(device, non_blocking=True)  # a plain copy would wait for what is queued


def scores_of(logits: torch.Tensor, words: torch.Tensor, has_rows: bool, vocabulary: bool) -> torch.Tensor:
    """Log-odds (B, 1) or, with `vocabulary`, log-odds and the label words' log-probabilities (B, 3).

    Args:
        logits: of shape (B, ...), as the head computes them within `label_rows`.
        words: ids (2,) of the label words, false first.
        has_rows: whether the last two columns are the label words' logits.
        vocabulary: whether to compute log-probabilities.
    """
    labels = logits[:, -2:] if has_rows else logits.index_select(1, words)
    log_odds = labels[:, 1:] - labels[:, :1]
    if not vocabulary:
        return log_odds
    whole = logits[:, :-2] if has_rows else logits
    return torch.cat([log_odds, whole.log_softmax(-1).index_select(1, words)], dim=1)


def require_halving(model: nn.Module, rows: int) -> None:
    """Raises UserError with sharded layers, where all processes must make the same number of passes."""
    if is_sharded(model):
        raise UserError(
            f"a batch of {rows} text(s) does not fit in the GPU's memory, and can't be halved with residency sharded: "
            "lower train.eval_max_tokens_per_batch or evaluate.max_tokens_per_batch (of predict, "
            "--max-tokens-per-batch)"
        )


def halves(batch: list[int], tokens: int) -> list[list[int]]:
    """The two halves of a batch that did not fit in memory. Raises UserError for a single row."""
    if len(batch) == 1:
        raise UserError(
            f"a text of {tokens} tokens does not fit in the GPU's memory: lower prompt.max_length, or choose method "
            "qlora"
        )
    return [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
