"""One batch in as many forward and backward passes as fit in memory."""

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from stages.errors import UserError
from stages.model.device import OutOfMemory
from stages.params import Train
from stages.train.dataset import Row, TrainingBatches
from stages.train.passes import Batch, Passes


class MicroBatches:
    """Adds a batch's gradients to those of the optimizer step, from the whole batch or, where it does not fit in
    memory, from micro-batches: the sum is the same.

    Args:
        passes: compute a micro-batch.
        params: the section train: profile, epochs.
        batches: the batches to come.
        collate: makes a batch of rows.
    """

    def __init__(self, passes: Passes, params: Train, batches: TrainingBatches, collate: Callable[[list[Row]], Batch]):
        self.passes, self.params, self.batches, self.collate = passes, params, batches, collate
        self.least = 1  # micro-batches to cut a batch into, as memory that ran out has shown
        self.zeroed = True  # whether no gradient was added since the optimizer step before
        self.too_large: Batch = {}  # the batch that is to blame where memory runs out

    def add_gradients(self, batch: Batch, tokens: torch.Tensor | int) -> torch.Tensor:
        """The batch's part of the step's loss. Where memory runs out, starts the batch again in another way.

        Args:
            batch: input_ids (B, T), positions (B, K), labels (B, 1 + K), on the CPU.
            tokens: answer tokens of the optimizer step.

        Raises UserError where a single row does not fit.
        """
        parameters = self.passes.parameters
        earlier = [None if self.zeroed or p.grad is None else p.grad.clone() for p in parameters]
        loss: Any = None
        while loss is None:
            with OutOfMemory():
                self.reserve()
                self.too_large = batch
                parts = cut(batch, self.number_for(batch))
                loss = sum(self.passes.forward_backward(part, tokens) for part in parts)
            if loss is None:
                self.make_room(self.too_large)
                if self.passes.captured is not None:
                    self.passes.captured.forget()
                torch.cuda.empty_cache()
                for parameter, gradient in zip(parameters, earlier, strict=True):
                    parameter.grad = None if gradient is None else gradient.clone()
        self.zeroed = False
        return loss

    def zero_gradients(self) -> None:
        self.passes.gradients.zero()
        self.zeroed = True

    def number_for(self, batch: Batch) -> int:
        """How many micro-batches the profile and earlier failures ask for. Always 1 with sharded layers: each process
        has other tokens, and would wait for another's micro-batches for ever."""
        if self.passes.sharded:
            return 1
        rows = len(batch["positions"])
        tokens = int(batch["positions"][:, -1].sum())
        return min(rows, max(self.least, -(-tokens // (self.passes.profile.max_tokens or tokens))))

    def reserve(self) -> None:
        """Before the first graph, captures that of the largest micro-batch: all others find room in its memory."""
        captured = self.passes.captured
        if captured is None or captured.inputs:
            return
        self.too_large = self.largest_batch()
        largest = max(cut(self.too_large, self.number_for(self.too_large)), key=self.passes.packed_tokens)
        captured.reserve(self.passes.packed(largest, 1))

    def largest_batch(self) -> Batch:
        """This process's batch with the largest micro-batch, in the first epochs."""
        largest, most = [], 0
        for epoch in range(min(3, math.ceil(self.params.num_train_epochs))):
            for rows in filter(None, self.batches.of_epoch(epoch)):
                positions = torch.tensor([[self.batches.lengths[row] - 1] for row in rows])
                parts = cut({"positions": positions}, self.number_for({"positions": positions}))
                tokens = max(map(self.passes.packed_tokens, parts))
                if tokens > most:
                    largest, most = rows, tokens
        return self.collate([self.batches.rows[row] for row in largest])

    def make_room(self, batch: Batch) -> None:
        """After a batch that did not fit: changes to the profile memory, where auto allows it, or else cuts this and
        all later batches into twice as many micro-batches. Raises UserError for a single row."""
        rows, tokens = batch["input_ids"].shape
        if self.params.profile == "auto" and not self.passes.saves_memory and not self.passes.sharded:
            print(
                f"train: a batch of {rows} x {tokens} tokens does not fit in the GPU's memory; train.profile auto "
                "changes to memory",
                file=sys.stderr,
            )
            self.passes.save_memory()
            return
        number = self.number_for(batch)
        if number >= rows or self.passes.sharded:
            raise UserError(
                f"a batch of {-(-rows // number)} text(s) of {tokens} tokens does not fit in the GPU's memory: set "
                "train.profile: memory, or lower train.per_device_train_batch_size, train.max_tokens_per_batch or "
                "prompt.max_length, or choose method qlora. The last resume checkpoint is whole"
            )
        self.least = 2 * number
        print(
            f"train: a batch of {rows} x {tokens} tokens does not fit in the GPU's memory; batches are now cut into "
            f"{self.least} micro-batches, which add up to the same step",
            file=sys.stderr,
        )


def cut(batch: Batch, number: int) -> Iterator[Batch]:
    """A batch in micro-batches of about as many rows each; at most one for each row."""
    columns = [tensor.chunk(min(number, len(tensor))) for tensor in batch.values()]
    for parts in zip(*columns, strict=True):
        yield dict(zip(batch, parts, strict=True))
