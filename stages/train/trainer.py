"""transformers' Trainer with three things replaced: the loss looks at the answer's tokens alone, evaluation is the
project's one scorer, and states are written whole or not at all. Schedules, optimizers, clipping, resuming and
callbacks are the Trainer's own."""

import contextlib
import functools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from peft import PeftModel
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from stages.artifacts import read_json
from stages.distributed import is_main_process, rank, world_size
from stages.errors import UserError
from stages.model.exactness import choose_layout
from stages.model.forward import completion_logits, packed_logits, pinned
from stages.model.fsdp import is_sharded
from stages.model.layout import Layout, layout_of
from stages.model.packed_attention import has_varlen, pack
from stages.params import Train
from stages.paths import CHECKPOINTS
from stages.text.batching import IGNORED
from stages.text.example import Example
from stages.text.prompt import Prompt
from stages.train.arguments import PROFILES, checkpoints_activations
from stages.train.callbacks import EvaluateAtEnd, KeepAdapter, StopOnSignal
from stages.train.cuda_graphs import CapturedPasses, compile_layers
from stages.train.dataset import TrainingBatches, TrainingCollator
from stages.train.loss import LossLog, answer_loss
from stages.train.nan_guard import NanGuard, require_finite_parameters
from stages.train.resume import PROGRESS_FILE, ResumeCheckpoints, Spent
from stages.train.validation import Validation

TOKENS_MULTIPLE, ROWS_MULTIPLE = 256, 8  # shapes of CUDA graphs are rounded up to these


class LabelTrainer(Trainer):
    """Trains on the answer's tokens; evaluates by scoring `valid`; keeps a state
    to go on from in `states`, and checkpoints beside it."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the tokens of the whole optimizer step

    def __init__(
        self,
        model: PeftModel,
        args: TrainingArguments,
        params: Train,
        rows: list[dict[str, Any]],
        valid: list[Example],
        prompt: Prompt,
        states: ResumeCheckpoints,
    ):
        self.stop = StopOnSignal()
        rows = [row | {"row": number} for number, row in enumerate(rows)]
        super().__init__(
            model,
            args,
            data_collator=TrainingCollator.of(rows, prompt.tokenizer.pad_token_id),
            train_dataset=rows,
            eval_dataset=valid,
            callbacks=[EarlyStoppingCallback(params.early_stopping_patience), EvaluateAtEnd(), self.stop],
        )
        self.model_accepts_loss_kwargs = True  # so that the Trainer counts the step's tokens, whatever the model takes
        self.validation = Validation(valid, prompt, params.eval_max_tokens_per_batch)
        self.nan_guard = NanGuard(rows)
        self.add_callback(KeepAdapter(states.folder / CHECKPOINTS.name, self.validation))
        self.add_callback(self.nan_guard)
        self.params = params
        self.batches = TrainingBatches(rows, params, rank(), world_size())
        self.prompt = prompt
        self.states = states
        self.facts: dict[str, Any] = {
            "rows": len(rows),
            "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        }
        self.pieces = 1  # into which a batch is cut, since it does not fit in memory whole
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.sharded = is_sharded(model)  # processes pass through the model together
        # Not in DistributedDataParallel, which adds up gradients within the passes: add_up_gradients does once a step,
        # so that a process's passes are its own, captured or in pieces.
        self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)
        if self.args.world_size > 1:
            for parameter in self.trained:  # other GPUs may draw other first weights
                torch.distributed.broadcast(parameter.data, src=0)
        choose_layout(model, prompt)
        model.train()  # all of it: the base model was loaded in eval mode
        self.profile = PROFILES[params.profile]
        self.captured = self.captured_passes(checkpoints_activations(params))
        self.working_on: dict[str, torch.Tensor] = {}  # the batch that is to blame where memory runs out
        self.loss_log = LossLog(self.accelerator)
        self.spent = Spent(args.device)

    def captured_passes(self, checkpointing: bool) -> CapturedPasses | None:
        """The passes as the profile has them; None for plain ones: on a CPU, where blocks are split over GPUs, and
        where texts are not packed."""
        random = checkpointing and self.params.lora_dropout > 0  # what is recomputed: a graph can't
        packed = layout_of(self.model) is Layout.PACKED
        if not packed and self.args.device.type == "cuda" and self.profile.captured and is_main_process():
            print("train: WARNING: without packing, train.profile compiles and captures nothing: passes are plain")
        on_gpu = self.args.device.type == "cuda" and not self.sharded and packed
        compile_layers(self.model, on_gpu and self.profile.compiled and not checkpointing)
        if not on_gpu or not self.profile.captured or random:
            return None
        return CapturedPasses(self.packed_loss, self.trained)

    def train_to_end(self, state: Path | None) -> Path:
        """Trains, from a state if there is one. Returns the last state. A signal ends the process, the state saved."""
        earlier = 0.0, 0
        if state:
            progress = read_json(state / PROGRESS_FILE)
            self.loss_log.restore(progress["losses"], progress["logged_step"])
            self.pieces = progress["pieces"]
            if progress["memory_profile"] and self.profile != PROFILES["memory"]:
                self.save_memory()
            earlier = progress["seconds"], progress["peak_memory_bytes"]
        self.spent.resume(*earlier)
        with self.stop.listening():
            self.train(resume_from_checkpoint=str(state) if state else None)
        if self.stop.signal is not None and not self.finished:
            print(
                f"train: stopped by signal {self.stop.signal} at step {self.state.global_step} of "
                f"{self.state.max_steps}, saved in {self.states.folder}: `dvc repro` goes on from there",
                file=sys.stderr,
            )
            sys.exit(128 + self.stop.signal)
        return self.states.newest()

    @property
    def finished(self) -> bool:
        """Whether no step is to come: the last is done, or valid got no better for too long."""
        (early,) = (each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback))
        stopped_early = early.early_stopping_patience_counter >= early.early_stopping_patience
        return self.state.global_step >= self.state.max_steps or stopped_early

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        # As if for one process: the sampler has distributed each batch already. accelerate would give each process
        # batches of its own, so that the number of steps would change with the number of processes.
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=False)

    def _prepare_inputs(self, inputs):
        return inputs  # packed on the CPU, then sent

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """The Trainer's, on pieces of the batch where the whole does not fit in memory: gradients add up to the same.

        Raises UserError where a single row does not fit.
        """
        earlier = [(p, None if p.grad is None else p.grad.clone()) for p in self.trained]
        self.working_on = inputs
        loss = None
        while loss is None:
            with contextlib.suppress(torch.OutOfMemoryError):
                loss = sum(
                    self.passes(model, piece, num_items_in_batch) for piece in cut(inputs, self.pieces_of(inputs))
                )
            if loss is None:  # outside the handler, whose traceback holds on to the tensors of the failed pass
                self.make_room(self.working_on)
                self.working_on = inputs
                for parameter, gradient in earlier:
                    parameter.grad = None if gradient is None else gradient.clone()
                if self.captured is not None:
                    self.captured.forget()
                torch.cuda.empty_cache()
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            self.add_up_gradients()
        self.nan_guard.note_loss(loss, self.state.global_step + 1, inputs["rows"].tolist())
        self.loss_log.note(loss)
        return loss

    def add_up_gradients(self) -> None:
        """Over all processes, each of which has those of its part of the step's loss."""
        gradients = [parameter.grad for parameter in self.trained]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        sums = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [s.view_as(gradient) for s, gradient in zip(sums, gradients, strict=True)])

    def pieces_of(self, inputs: dict[str, torch.Tensor]) -> int:
        """Into how many pieces the profile and earlier failures cut a batch. It stays whole where blocks are split over
        GPUs: each process has other tokens, and would wait for another's pieces for ever."""
        rows = len(inputs["positions"])
        tokens = int(inputs["positions"][:, -1].sum())
        at_once = self.profile.max_tokens or tokens
        return min(rows, max(self.pieces, -(-tokens // at_once))) if not self.sharded else 1

    def passes(self, model, inputs, num_items_in_batch) -> torch.Tensor:
        """Forward and backward of a batch; its part of the step's loss."""
        if self.captured is None:
            return super().training_step(model, inputs, num_items_in_batch)
        if not model.training:  # which visits every module
            model.train()
        if not self.captured.inputs:
            self.working_on, now = self.largest_batch(), self.working_on
            largest = max(cut(self.working_on, self.pieces_of(self.working_on)), key=self.packed_tokens)
            self.captured.reserve(self.packed(largest, 1))
            self.working_on = now
        return self.captured(self.packed(inputs, num_items_in_batch))

    def packed(self, inputs: dict[str, torch.Tensor], num_items_in_batch: torch.Tensor | int) -> dict[str, Any]:
        """What a graph takes: a batch in one of few shapes, the labels, and the answer tokens of the step."""
        varlen = has_varlen(self.args.device, self.model.get_output_embeddings().weight.dtype)
        packed = pack(inputs, len(self.prompt.prefix), varlen, TOKENS_MULTIPLE, ROWS_MULTIPLE)
        labels = inputs["labels"][:, 1:]
        empty = packed["positions"].shape[1] - len(labels)
        packed["labels"] = functional.pad(labels, (0, 0, 0, empty), value=IGNORED)
        packed["tokens"] = torch.as_tensor(num_items_in_batch, dtype=torch.float32)
        return packed

    def packed_tokens(self, inputs: dict[str, torch.Tensor]) -> int:
        shared = len(self.prompt.prefix)
        return shared + int((inputs["positions"][:, -1] + 1 - shared).sum())

    def largest_batch(self) -> dict[str, torch.Tensor]:
        """Of the first epochs' batches, this process's part of them, the one with the largest piece."""
        largest, most = [], 0
        for epoch in range(min(3, math.ceil(self.args.num_train_epochs))):
            for batch in filter(None, self.batches.of_epoch(epoch)):
                positions = torch.tensor([[self.batches.lengths[row] - 1] for row in batch])
                pieces = cut({"positions": positions}, self.pieces_of({"positions": positions}))
                tokens = max(map(self.packed_tokens, pieces))
                if tokens > most:
                    largest, most = batch, tokens
        return self.data_collator([self.train_dataset[row] for row in largest])

    def packed_loss(self, packed: dict[str, Any]) -> torch.Tensor:
        """compute_loss of what `packed` gives, on the GPU, in operations that a graph can hold."""
        rest = {name: value for name, value in packed.items() if name not in ("labels", "tokens")}
        return answer_loss(packed_logits(self.model, rest), packed["labels"], packed["tokens"])

    def _get_grad_norm(self, model, grad_norm=None) -> torch.Tensor:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.nan_guard.note_norm(norm, self.state.global_step + 1)
        return norm

    def _get_num_items_in_batch(self, batch_samples, device):
        """Of the step, in all processes. They are counted on the CPU, and a plain copy to a GPU would wait for all that
        it has to do."""
        number = super()._get_num_items_in_batch(batch_samples, torch.device("cpu"))
        if number is not None and self.args.world_size > 1:
            number = pinned(number, device).to(device, non_blocking=True)
            torch.distributed.all_reduce(number)
        return number

    def floating_point_ops(self, inputs) -> int:
        return 0  # the Trainer would count all parameters at each step, for a figure that nobody here reads

    def make_room(self, inputs: dict[str, torch.Tensor]) -> None:
        """After a batch that did not fit: goes over to the profile memory, where auto says so, or cuts this and all
        batches to come into twice as many pieces. Raises UserError for a single row."""
        rows, tokens = inputs["input_ids"].shape
        if self.params.profile == "auto" and self.profile != PROFILES["memory"] and not self.sharded:
            print(
                f"train: a batch of {rows} x {tokens} tokens does not fit in the GPU's memory as it is; train.profile "
                "auto goes on as memory",
                file=sys.stderr,
            )
            self.save_memory()
            return
        pieces = self.pieces_of(inputs)
        if pieces >= rows or self.sharded:
            raise UserError(
                f"a batch of {-(-rows // pieces)} text(s) of {tokens} tokens does not fit in the GPU's memory: "
                "set train.profile: memory, or lower train.per_device_train_batch_size, train.max_tokens_per_batch or "
                "prompt.max_length, or choose method qlora. The last saved state is whole"
            )
        self.pieces = 2 * pieces
        print(
            f"train: a batch of {rows} x {tokens} tokens does not fit in the GPU's memory; batches are now worked off "
            f"in {self.pieces} pieces, which add up to the same step",
            file=sys.stderr,
        )

    def save_memory(self) -> None:
        """Goes over to the profile memory."""
        self.profile = PROFILES["memory"]
        self.captured = None  # its gradients and graphs go before others come
        self.model.activation_checkpointing_enable(self.args.activation_checkpointing_kwargs)
        self.captured = self.captured_passes(checkpointing=True)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The mean loss of the steps since the last log, those of an earlier process among them."""
        if "loss" in logs:
            logs["loss"] = self.loss_log.mean(self.state.global_step)
        super().log(logs, start_time)

    def _save_checkpoint(self, model, trial) -> None:
        """Lets the Trainer write its state where ResumeCheckpoints keeps it: whole or not at all.

        on_save would come too late: of a disk that fills up while the Trainer writes it would learn nothing.
        """
        require_finite_parameters(self.model, self.state.global_step)
        with self.states.saving(self.state.global_step, self.progress()) as folder:
            self.args.output_dir = str(folder)
            super()._save_checkpoint(model, trial)

    def progress(self) -> dict[str, Any]:
        """What a state holds beside the Trainer's own. Of several processes, the most: each finds out for itself what
        fits in its memory."""
        here = [self.pieces, self.profile == PROFILES["memory"], self.spent.peak_memory_bytes()]
        most = torch.tensor(here, device=self.args.device)
        if self.args.world_size > 1:
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        pieces, memory_profile, peak = most.tolist()
        return {
            "finished": self.finished,
            "prompt": self.prompt.rendered,
            "losses": self.loss_log.all_losses(),
            "logged_step": self.loss_log.logged_step,
            "pieces": pieces,
            "memory_profile": bool(memory_profile),
            "seconds": self.spent.seconds(),
            "peak_memory_bytes": peak,
            "facts": self.facts | {"steps": self.state.global_step, "epochs": self.state.epoch},
        }

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean cross entropy, over the vocabulary, of the K answer tokens in labels (B, 1 + K).

        The mean is over all answer tokens of the optimizer step (num_items_in_batch), so it does not depend on how
        batches were accumulated.
        """
        labels = inputs["labels"][:, 1:].to(self.args.device)
        logits = completion_logits(model, inputs, len(self.prompt.prefix))  # (B, K, vocabulary)
        tokens = labels.ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = answer_loss(logits, labels, tokens)
        return (loss, {"logits": logits}) if return_outputs else loss

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """Scores `valid` and logs loss, average precision, ROC AUC and the best F1 that a threshold could give."""
        metrics = {
            f"{metric_key_prefix}_{name}": value
            for name, value in self.validation.metrics(self.model, self.state.global_step).items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def cut(batch: dict[str, torch.Tensor], pieces: int) -> Iterator[dict[str, torch.Tensor]]:
    """A batch in pieces of about as many rows each, as many as there are rows at most."""
    columns = [tensor.chunk(min(pieces, len(tensor))) for tensor in batch.values()]
    for parts in zip(*columns, strict=True):
        yield dict(zip(batch, parts, strict=True))
