"""Hidden states of a text, averaged over its tokens, and its score, from one forward a text."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from stages.distributed import all_reduce_sum, local_shard, rank
from stages.model.device import OutOfMemory
from stages.model.exactness import choose_layout
from stages.model.forward import completion_logits, label_rows
from stages.model.fsdp import passes_to_join
from stages.model.layout import Layout, layout_of, underlying
from stages.model.load import decoder_layers
from stages.model.scoring import WINDOW, batches_of, halves, label_words, require_halving, scores_of
from stages.text.batching import Collator
from stages.text.prompt import Prompt

KEPT_LAYERS = 9  # of a deeper model, evenly spaced, so that they fit in memory and a probe of each takes no minutes


@dataclass(frozen=True)
class TextStates:
    """What passes of N texts give.

    states: float32 of shape (N, L, H), the output of L layers, averaged over a text's tokens.
    log_odds: float64 of shape (N,), the model's score of each text, as `label_scores` computes it.
    truncated: bool of shape (N,), whether the text was too long for the prompt and was truncated.
    """

    states: np.ndarray
    log_odds: np.ndarray
    truncated: np.ndarray


def layers_to_keep(model: nn.Module) -> list[int]:
    """Numbers of decoder layers, from 1. The last one is always among them."""
    count = len(outer_layers(model))
    if count <= KEPT_LAYERS:
        return list(range(1, count + 1))
    return [round((number + 1) * count / KEPT_LAYERS) for number in range(KEPT_LAYERS)]


def outer_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder layers, first to last. Some architectures name a layer's mixer as one, too, which is left out."""
    layers = decoder_layers(underlying(model))
    inner = {id(part) for layer in layers for part in layer.modules() if part is not layer}
    return [layer for layer in layers if id(layer) not in inner]


def text_states(
    model: nn.Module, prompt: Prompt, texts: Sequence[str], layers: list[int], max_tokens_per_batch: int, title: str
) -> TextStates:
    """The output of each layer, averaged over a text's tokens as the prompt holds them (the last repetition), and the
    model's score of each text.

    Windows and batches are those of `label_scores`, so that a text's states and score don't depend on who asks. With
    several processes, the rows of a window are distributed over them, and all get all states.

    Args:
        model: the base model, in eval mode, with or without adapters.
        prompt: the prompt around each text.
        texts: N texts, in the order of their file.
        layers: numbers of L decoder layers, from 1.
        max_tokens_per_batch: maximum of padded tokens in a batch.
        title: title of the progress bar; empty for no bar.
    """
    choose_layout(model, prompt)
    device = next(model.parameters()).device
    states, log_odds, truncated = [], [], []
    with tqdm(total=len(texts), desc=title, unit="text", disable=rank() > 0 or not title) as progress:
        for first in range(0, len(texts), WINDOW):
            window = texts[first : first + WINDOW]
            tokens = prompt.tokenize(list(window))
            truncated += [len(ids) > prompt.room for ids in tokens]
            of_window, scores = window_states(model, prompt, tokens, layers, max_tokens_per_batch)
            states.append(all_reduce_sum(of_window, device).numpy())
            log_odds.append(all_reduce_sum(scores, device).numpy())
            progress.update(len(window))
    return TextStates(np.concatenate(states), np.concatenate(log_odds), np.array(truncated, dtype=bool))


@torch.no_grad()
def window_states(
    model: nn.Module, prompt: Prompt, tokens: list[list[int]], layers: list[int], max_tokens_per_batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """States (N, L, H) and log-odds (N,) of this process's rows of a window, zeros for the rows of others, on the CPU.

    Args:
        model: the base model.
        prompt: the prompt around each text.
        tokens: token ids of N whole texts.
        layers: numbers of L decoder layers.
        max_tokens_per_batch: maximum of padded tokens in a batch.
    """
    rows = {number: {"input_ids": prompt.encode(tokens[number])} for number in local_shard(range(len(tokens)))}
    collate = Collator(prompt.tokenizer.pad_token_id)
    after = len(prompt.suffix) + len(prompt.answer_prefix)
    states = torch.zeros(len(tokens), len(layers), width(model))
    log_odds = torch.zeros(len(tokens), dtype=torch.float64)
    todo = batches_of(list(rows), rows, max_tokens_per_batch)[::-1]
    to_join = passes_to_join(model, len(todo), next(model.parameters()).device)
    while todo:
        batch = todo.pop()
        fits = False
        with OutOfMemory():
            inputs = collate([rows[number] for number in batch])
            lengths = [len(prompt.truncate(tokens[number])) for number in batch]
            ends = (inputs["positions"][:, -1] + 1 - after).tolist()
            # A text without any token has the state of the token after it.
            spans = [(end - size, max(end, end - size + 1)) for end, size in zip(ends, lengths, strict=True)]
            of_batch, scores = states_and_scores(model, prompt, inputs, spans, layers)
            states[batch], log_odds[batch] = of_batch.cpu(), scores.cpu()
            fits = True
        if not fits:
            require_halving(model, len(batch))
            todo += halves(batch, len(rows[batch[0]]["input_ids"]))
            torch.cuda.empty_cache()
    for _ in range(to_join):
        completion_logits(model, collate([{"input_ids": prompt.encode([])}]), len(prompt.prefix))
    return states, log_odds


def width(model: nn.Module) -> int:
    """The size of a hidden state."""
    return underlying(model).config.get_text_config().hidden_size


def states_and_scores(
    model: nn.Module,
    prompt: Prompt,
    inputs: dict[str, torch.Tensor],
    spans: list[tuple[int, int]],
    layers: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean output (B, L, H) of each layer over a span of each row, in float32, and log-odds (B,), in float64, from one
    pass in the model's layout.

    Args:
        model: the base model.
        prompt: the prompt, whose prefix all rows share.
        inputs: input_ids (B, T) and positions (B, 1), on the CPU.
        spans: first position and end of the B texts in their rows.
        layers: numbers of L decoder layers.
    """
    shared = len(prompt.prefix)
    words = label_words(prompt, next(model.parameters()).device)
    with outputs_of(model, layers) as outputs, label_rows(model, words, vocabulary=False) as has_rows:
        logits = completion_logits(model, inputs, shared)[:, 0]
    log_odds = scores_of(logits if has_rows else logits.float(), words, has_rows, vocabulary=False)[:, 0].double()
    starts = row_starts(layout_of(model), inputs, shared)
    sizes = torch.tensor([end - first for first, end in spans])
    index = torch.cat([start + torch.arange(first, end) for start, (first, end) in zip(starts, spans, strict=True)])
    means = []
    for passes in outputs:
        tokens = torch.cat([output.flatten(0, 1) for output in passes])
        picked = tokens[index.to(tokens.device)].float()
        means.append(torch.segment_reduce(picked, "mean", lengths=sizes.to(tokens.device), axis=0))
    return torch.stack(means, dim=1), log_odds


@contextlib.contextmanager
def outputs_of(model: nn.Module, layers: list[int]) -> Iterator[list[list[torch.Tensor]]]:
    """Yields, for each layer, a list that takes its output (rows, tokens, H) in each pass within the block."""
    kept: list[list[torch.Tensor]] = [[] for _ in layers]
    all_layers = outer_layers(model)

    def keep_in(outputs: list[torch.Tensor]) -> Callable[..., None]:
        def keep(layer: nn.Module, inputs: tuple, output: Any) -> None:
            while isinstance(output, tuple) or output.dim() > 3:  # several outputs, or several streams (Gemma 3n)
                output = output[0]
            outputs.append(output)

        return keep

    hooks = [
        all_layers[number - 1].register_forward_hook(keep_in(outputs))
        for number, outputs in zip(layers, kept, strict=True)
    ]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def row_starts(layout: Layout, inputs: dict[str, torch.Tensor], shared: int) -> list[int]:
    """Where position 0 of each row would be among all tokens of the passes, one pass after the other.

    Args:
        layout: of the model.
        inputs: input_ids (B, T) and positions (B, 1).
        shared: tokens of the prompt prefix. Packed rows share them, so positions below are only the first row's.
    """
    lengths = inputs["positions"][:, -1] + 1
    if layout is Layout.PADDED:
        return (torch.arange(len(lengths)) * inputs["input_ids"].shape[1]).tolist()
    order = torch.arange(len(lengths))
    if layout is Layout.EQUAL_LENGTHS:  # a pass for each length, the shortest first
        order = lengths.argsort(stable=True)
    else:
        lengths = lengths - shared
    starts = torch.zeros(len(lengths), dtype=torch.long)
    starts[order] = lengths[order].cumsum(0) - lengths[order]
    return starts.tolist()
