"""Batches of similar lengths, bounded by a token budget and padded on the right."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

# Lengths are rounded up to a multiple of this, so that few shapes occur and matrix units see aligned rows.
LENGTH_MULTIPLE = 8
IGNORED = -100  # torch's ignore_index


def padded(length: int) -> int:
    """The length of a row of `length` tokens in a batch."""
    return -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


class TokenBudgetBatches(Sampler[list[int]]):
    """Yields lists of row numbers whose padded tokens stay within a budget.

    Rows are grouped by padded length (with group_by_length false, in random order), cut into batches, and the batches
    are shuffled. Which rows of a length share a batch changes with the epoch. Where lengths are grouped, the number of
    batches does not. A row longer than the budget is a batch of its own.

    Args:
        lengths: tokens of each row.
        max_tokens: maximum of padded tokens in a batch; None for no bound.
        max_rows: maximum of rows in a batch; None for no bound.
        shuffle: False for longest first and always the same order, as in scoring.
        group_by_length: whether rows of a batch have similar lengths.
        seed: of the random order.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        max_tokens: int | None,
        max_rows: int | None = None,
        *,
        shuffle: bool = False,
        group_by_length: bool = True,
        seed: int = 0,
    ):
        self.lengths = [padded(length) for length in lengths]
        self.max_tokens, self.max_rows = max_tokens, max_rows
        self.shuffle, self.group_by_length = shuffle, group_by_length
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches(self.epoch))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches(self.epoch))

    def batches(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, in their order."""
        rng = random.Random(f"{self.seed}/{epoch}")
        order = list(range(len(self.lengths)))
        if self.shuffle:
            rng.shuffle(order)
        if self.group_by_length:
            order.sort(key=lambda row: -self.lengths[row])  # stable, so rows of a length stay shuffled
        batches = self.cut(order)
        if self.shuffle:
            rng.shuffle(batches)
        return batches

    def cut(self, order: list[int]) -> list[list[int]]:
        batches: list[list[int]] = []
        longest = 0
        for row in order:
            longest = max(longest, self.lengths[row])
            rows = len(batches[-1]) + 1 if batches else 0
            over_tokens = self.max_tokens is not None and rows * longest > self.max_tokens
            over_rows = self.max_rows is not None and rows > self.max_rows
            if not batches or over_tokens or over_rows:
                batches.append([])
                longest = self.lengths[row]
            batches[-1].append(row)
        return batches


@dataclass(frozen=True)
class Collator:
    """Pads rows of {"input_ids": list of int, "labels": list of K int, "row": int} on the right, to a batch of tensors.

    Returns input_ids (B, T); positions (B, K) of the last K tokens of each row; labels (B, 1 + K), which are -100 and
    then the tokens that should follow these positions; and rows (B,), the rows' numbers. The -100 comes first because
    the Trainer counts a batch's targets as labels[:, 1:], as if the model shifted them. Rows without labels have K = 1
    and get no labels; rows without a number get no numbers.
    """

    pad_token_id: int

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        input_ids = torch.full((len(rows), padded(int(lengths.max()))), self.pad_token_id)
        for index, row in enumerate(rows):
            input_ids[index, : lengths[index]] = torch.tensor(row["input_ids"])
        targets = len(rows[0].get("labels", [None]))
        batch = {"input_ids": input_ids, "positions": lengths.unsqueeze(1) - targets + torch.arange(targets)}
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([[IGNORED, *row["labels"]] for row in rows])
        if "row" in rows[0]:
            batch["rows"] = torch.tensor([row["row"] for row in rows])
        return batch
