"""One batch in as many forward and backward passes as fit in memory, plain or as CUDA graphs."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional

from stages.distributed import is_main_process
from stages.errors import UserError
from stages.model.cuda_graphs import compile_layers
from stages.model.forward import completion_logits, label_rows, packed_logits
from stages.model.fsdp import is_sharded
from stages.model.fused_lora import FusedAdapters
from stages.model.layout import Layout, layout_of
from stages.model.packed_attention import FEW_SHAPES, has_varlen, pack
from stages.params import Train
from stages.text.batching import IGNORED
from stages.text.prompt import Prompt
from stages.train.arguments import PROFILES, checkpointing_options, checkpoints_activations
from stages.train.captured_gradients import CapturedGradients
from stages.train.dataset import Row, TrainingBatches
from stages.train.gradients import Gradients
from stages.train.loss import answer_loss

Batch = dict[str, torch.Tensor]


class MicroBatches:
    """Adds a batch's gradients to those of the optimizer step, from the whole batch or, where it does not fit in
    memory, from micro-batches: the sum is the same.

    Args:
        model: the base model with adapters, whose layout is chosen.
        params: the section train: profile, dropout, epochs.
        prompt: the prompt around each text.
        batches: the batches to come.
        collate: makes a batch of rows.
    """

    def __init__(
        self,
        model: PeftModel,
        params: Train,
        prompt: Prompt,
        batches: TrainingBatches,
        collate: Callable[[list[Row]], Batch],
    ):
        self.model, self.params, self.batches, self.collate = model, params, batches, collate
        self.shared = len(prompt.prefix)  # tokens of the shared prompt prefix
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.separate = Gradients(self.parameters)
        self.head = model.get_output_embeddings().weight
        words = torch.tensor([prompt.label_ids[False], prompt.label_ids[True]], device=self.head.device)
        self.words = words if params.loss == "binary" else None
        self.sharded = is_sharded(model)  # processes pass through the model together
        self.profile = PROFILES[params.profile]
        self.least = 1  # micro-batches to cut a batch into, as memory that ran out has shown
        self.fused: FusedAdapters | None = None
        self.zeroed = True  # whether no gradient was added since the optimizer step before
        self.captured = self.captured_passes(checkpoints_activations(params))
        self.too_large: Batch = {}  # the batch that is to blame where memory runs out

    def add_gradients(self, batch: Batch, tokens: torch.Tensor | int) -> torch.Tensor:
        """The batch's part of the step's loss. Where memory runs out, starts the batch again in another way.

        Args:
            batch: input_ids (B, T), positions (B, K), labels (B, 1 + K), on the CPU.
            tokens: answer tokens of the optimizer step.

        Raises UserError where a single row does not fit.
        """
        earlier = [None if self.zeroed or p.grad is None else p.grad.clone() for p in self.parameters]
        self.too_large = batch
        loss: Any = None
        while loss is None:
            with contextlib.suppress(torch.OutOfMemoryError):
                loss = sum(self.forward_backward(part, tokens) for part in cut(batch, self.number_for(batch)))
            if loss is None:  # outside the handler, whose traceback holds on to the tensors of the failed pass
                self.make_room(self.too_large)
                self.too_large = batch
                for parameter, gradient in zip(self.parameters, earlier, strict=True):
                    parameter.grad = None if gradient is None else gradient.clone()
                if self.captured is not None:
                    self.captured.forget()
                torch.cuda.empty_cache()
        self.zeroed = False
        return loss

    @property
    def gradients(self) -> Gradients | CapturedGradients:
        """Where the passes leave their gradients."""
        return self.separate if self.captured is None else self.captured

    def zero_gradients(self) -> None:
        self.gradients.zero()
        self.zeroed = True

    def number_for(self, batch: Batch) -> int:
        """How many micro-batches the profile and earlier failures ask for. Always 1 with sharded layers: each process
        has other tokens, and would wait for another's micro-batches for ever."""
        if self.sharded:
            return 1
        rows = len(batch["positions"])
        tokens = int(batch["positions"][:, -1].sum())
        return min(rows, max(self.least, -(-tokens // (self.profile.max_tokens or tokens))))

    def forward_backward(self, batch: Batch, tokens: torch.Tensor | int) -> torch.Tensor:
        """The batch's part of the step's loss, from one pass."""
        if not self.model.training:  # train() visits every module
            self.model.train()
        if self.captured is None:
            loss = self.loss(batch, tokens)
            loss.backward()
            return loss.detach()
        if not self.captured.inputs:
            self.reserve()
        return self.captured(self.packed(batch, tokens))

    def loss(self, batch: Batch, tokens: torch.Tensor | int | None = None) -> torch.Tensor:
        """Of a plain pass. tokens: None for those of the batch."""
        labels = batch["labels"][:, 1:].to(self.head.device)
        logits = self.logits(lambda: completion_logits(self.model, batch, self.shared))
        return answer_loss(logits, labels, labels.ne(IGNORED).sum() if tokens is None else tokens)

    def packed_loss(self, packed: dict[str, Any]) -> torch.Tensor:
        """The same of what `packed` gives, on the GPU, in operations that a CUDA graph can hold."""
        inputs = {name: value for name, value in packed.items() if name not in ("labels", "tokens")}
        logits = self.logits(lambda: packed_logits(self.model, inputs))
        return answer_loss(logits, packed["labels"], packed["tokens"])

    def logits(self, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Logits (B, K, vocabulary), or (B, K, 2) of the label words alone, as scores are computed."""
        if self.words is None:
            return forward()
        with label_rows(self.model, self.words, vocabulary=False) as alone:
            logits = forward()
        return logits if alone else logits.index_select(-1, self.words)

    def packed(self, batch: Batch, tokens: torch.Tensor | int) -> dict[str, Any]:
        """What a CUDA graph takes: the batch packed into one of few shapes, its labels, and the step's tokens."""
        varlen = has_varlen(self.head.device, self.head.dtype)
        packed: dict[str, Any] = pack(batch, self.shared, varlen, **FEW_SHAPES)
        labels = batch["labels"][:, 1:]
        empty = packed["positions"].shape[1] - len(labels)
        packed["labels"] = functional.pad(labels, (0, 0, 0, empty), value=IGNORED)
        packed["tokens"] = torch.as_tensor(tokens, dtype=torch.float32)
        return packed

    def packed_tokens(self, batch: Batch) -> int:
        return self.shared + int((batch["positions"][:, -1] + 1 - self.shared).sum())

    def reserve(self) -> None:
        """Captures the largest micro-batch first, so that all others find room in its memory."""
        self.too_large, batch = self.largest_batch(), self.too_large
        largest = max(cut(self.too_large, self.number_for(self.too_large)), key=self.packed_tokens)
        assert self.captured is not None
        self.captured.reserve(self.packed(largest, 1))
        self.too_large = batch

    def largest_batch(self) -> Batch:
        """This process's batch with the largest micro-batch, in the first epochs."""
        largest, most = [], 0
        for epoch in range(min(3, math.ceil(self.params.num_train_epochs))):
            for rows in filter(None, self.batches.of_epoch(epoch)):
                positions = torch.tensor([[self.batches.lengths[row] - 1] for row in rows])
                parts = cut({"positions": positions}, self.number_for({"positions": positions}))
                tokens = max(map(self.packed_tokens, parts))
                if tokens > most:
                    largest, most = rows, tokens
        return self.collate([self.batches.rows[row] for row in largest])

    def captured_passes(self, checkpointing: bool) -> CapturedGradients | None:
        """Compiles layers and prepares CUDA graphs as the profile says. None for plain passes: on a CPU, with sharded
        layers, and where texts are not packed."""
        random = checkpointing and self.params.lora_dropout > 0  # computed again with other numbers by a graph
        cuda = self.head.device.type == "cuda"
        packed = layout_of(self.model) is Layout.PACKED
        if not packed and cuda and self.profile.captured and is_main_process():
            print("train: WARNING: without packing, train.profile compiles and captures nothing: passes are plain")
        on_gpu = cuda and not self.sharded and packed
        self.compile(on_gpu and self.profile.compiled and not checkpointing)
        if not on_gpu or not self.profile.captured or random:
            return None
        return CapturedGradients(self.packed_loss, self.parameters)

    def compile(self, compiled: bool) -> None:
        """Compiles layers and fuses their adapters, or undoes both."""
        if self.fused is not None:
            self.fused.undo()
        self.fused = FusedAdapters(self.model) if compiled else None
        compile_layers(self.model, compiled)

    def make_room(self, batch: Batch) -> None:
        """After a batch that did not fit: changes to the profile memory, where auto allows it, or else cuts this and
        all later batches into twice as many micro-batches. Raises UserError for a single row."""
        rows, tokens = batch["input_ids"].shape
        if self.params.profile == "auto" and not self.saves_memory and not self.sharded:
            print(
                f"train: a batch of {rows} x {tokens} tokens does not fit in the GPU's memory; train.profile auto "
                "changes to memory",
                file=sys.stderr,
            )
            self.save_memory()
            return
        number = self.number_for(batch)
        if number >= rows or self.sharded:
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

    @property
    def saves_memory(self) -> bool:
        return self.profile == PROFILES["memory"]

    def save_memory(self) -> None:
        """Changes to the profile memory."""
        self.profile = PROFILES["memory"]
        self.captured = None  # its gradients and graphs go before others come
        self.model.activation_checkpointing_enable(checkpointing_options(self.params))
        self.captured = self.captured_passes(checkpointing=True)


def cut(batch: Batch, number: int) -> Iterator[Batch]:
    """A batch in micro-batches of about as many rows each; at most one for each row."""
    columns = [tensor.chunk(min(number, len(tensor))) for tensor in batch.values()]
    for parts in zip(*columns, strict=True):
        yield dict(zip(batch, parts, strict=True))
