"""Batches of rows of similar length, within a token budget, padded on the right."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

# Lengths are rounded up to a multiple of this, so that few shapes occur and matrix units get aligned rows.
LENGTH_MULTIPLE = 8
IGNORED = -100  # torch's ignore_index


def padded(length: int) -> int:
    """The length in tokens that a row of `length` tokens has in a batch."""
    return -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


class TokenBudgetBatches(Sampler[list[int]]):
    """Yields lists of row numbers whose padded tokens stay within a budget.

    Rows are grouped by padded length, or taken in random order if group_by_length is False. They are cut into batches,
    and the batches are shuffled. With grouped lengths an epoch changes which rows of a length share a batch, but not
    the number of batches. A row longer than the budget is a batch by itself.

    Args:
        lengths: tokens of each row.
        max_tokens: most padded tokens in a batch; None for no bound.
        max_rows: most rows in a batch; None for no bound.
        shuffle: False gives longest first and always the same order, for scoring.
        rank, world: of each batch, the rows of process `rank` of so many: the batches are those of one process, dealt
            out to all. A process that gets none of a batch gets ~row, of a row that another one has.
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
        rank: int = 0,
        world: int = 1,
    ):
        self.lengths = [padded(length) for length in lengths]
        self.max_tokens, self.max_rows = max_tokens, max_rows
        self.shuffle, self.group_by_length = shuffle, group_by_length
        self.seed, self.epoch = seed, 0
        self.rank, self.world = rank, world

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches())

    def __iter__(self) -> Iterator[list[int]]:
        return (self.dealt(batch) or [~batch[0]] for batch in self.batches())

    def dealt(self, batch: list[int]) -> list[int]:
        """This process's rows, in the order of the batch. They are dealt out longest first, there and back (0, 1, 1, 0,
        0, …), so that no process waits for long for one with more tokens."""
        longest_first = sorted(batch, key=lambda row: -self.lengths[row])
        turn = 2 * self.world
        own = {*longest_first[self.rank :: turn], *longest_first[turn - 1 - self.rank :: turn]}
        return [row for row in batch if row in own]

    def batches(self) -> list[list[int]]:
        rng = random.Random(f"{self.seed}/{self.epoch}")
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

    Returns input_ids (B, T), positions (B, K) of the last K tokens of each row, and labels (B, 1 + K): -100, then the
    tokens that should follow at these positions. The -100 comes first because the Trainer counts the targets of a
    batch as labels[:, 1:], as if the model shifted them. Rows without labels have K = 1 and get no labels. rows (B,)
    holds their numbers, if they have any.
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
