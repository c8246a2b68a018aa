"""The rows that training learns from, in batches that do not depend on the number of processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import torch
from torch.utils.data import Sampler

from stages.errors import UserError
from stages.params import Train
from stages.text.batching import IGNORED, Collator, TokenBudgetBatches
from stages.text.example import Example
from stages.text.prompt import Prompt

Row = dict[str, Any]


def training_rows(
    examples: list[Example], prompt: Prompt, loss: Literal["label", "binary", "completion"]
) -> tuple[list[Row], int]:
    """Each example as the model's input and the K tokens that should follow its last K positions.

    Args:
        examples: what to learn.
        prompt: the prompt around each text.
        loss: `label`, where the input ends with the answer prefix and K = 1; `binary`, the same with 0 or 1 instead of
            the label word's token; `completion`, where the whole answer is learned, its prefix first.

    Returns the rows, and how many texts were truncated. Raises UserError where an answer cannot be ended.
    """
    if loss == "completion" and None in prompt.end:
        raise UserError(
            "train.loss is completion, and the base model's tokenizer has no eos_token to end an answer with: set "
            "train.loss: label, or choose another base model"
        )
    texts = prompt.tokenize([example.input for example in examples])
    rows = []
    for example, ids in zip(examples, texts, strict=True):
        if loss == "label":
            row = {"input_ids": prompt.encode(ids), "labels": [prompt.label_ids[example.label]]}
        elif loss == "binary":
            row = {"input_ids": prompt.encode(ids), "labels": [int(example.label)]}
        elif loss != "completion":
            assert_never(loss)
        else:
            answer = prompt.answer(example.label)
            row = {"input_ids": prompt.encode(ids, answer_prefix=False) + answer[:-1], "labels": answer}
        rows.append(row | {"source": example.source})
    return rows, sum(len(ids) > prompt.room for ids in texts)


class TrainingBatches(Sampler[list[int]]):
    """Yields this process's row numbers of each batch, which may be none.

    A batch is the one that a single process would train on. Its rows are distributed over the processes, so the number
    of processes changes neither batches nor steps.

    Args:
        rows: all rows, with their `input_ids`.
        params: the section train, whose batch size, token budget, sampling strategy and seed count.
        rank: number of this process, from 0.
        world: number of processes.
    """

    def __init__(self, rows: list[Row], params: Train, rank: int, world: int):
        self.rows, self.rank, self.world = rows, rank, world
        self.lengths = [len(row["input_ids"]) for row in rows]
        self.whole = TokenBudgetBatches(
            self.lengths,
            params.max_tokens_per_batch,
            params.per_device_train_batch_size,
            shuffle=True,
            group_by_length={"group_by_length": True, "random": False}[params.train_sampling_strategy],
            seed=params.seed,
        )

    def set_epoch(self, epoch: int) -> None:
        self.whole.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.whole)

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.local_rows, self.whole)

    def of_epoch(self, epoch: int) -> Iterator[list[int]]:
        """What an epoch will yield."""
        return map(self.local_rows, self.whole.batches(epoch))

    def local_rows(self, batch: list[int]) -> list[int]:
        """This process's rows, in the order of the batch.

        Rows are distributed longest first, forth and back (process 0, 1, 1, 0, 0, …), so that no process waits for long
        for one with more tokens.
        """
        longest_first = sorted(batch, key=lambda row: -self.whole.lengths[row])
        turn = 2 * self.world
        own = {*longest_first[self.rank :: turn], *longest_first[turn - 1 - self.rank :: turn]}
        return [row for row in batch if row in own]


@dataclass(frozen=True)
class TrainingCollator:
    """Makes a batch of rows; without rows, of a placeholder with nothing to learn.

    All processes must take part in every step: sharded layers are gathered, and gradients added up, together.
    """

    collate: Collator
    placeholder: Row

    @classmethod
    def of(cls, rows: list[Row], pad_token_id: int) -> "TrainingCollator":
        """The shortest row, without its labels, is the placeholder."""
        shortest = min(rows, key=lambda row: len(row["input_ids"]))
        return cls(Collator(pad_token_id), shortest | {"labels": [IGNORED] * len(shortest["labels"])})

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        return self.collate(rows or [self.placeholder])
