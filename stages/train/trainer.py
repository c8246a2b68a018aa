"""transformers' Trainer with the project's own batches, passes, evaluation and resume checkpoints.

Schedules, optimizers, clipping, resuming and callbacks are the Trainer's. Two of its private methods are overridden,
since no public hook gives what they give: `_get_grad_norm` (the norm) and `_save_checkpoint` (where files are written).
"""

from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments

from stages.artifacts import read_json
from stages.distributed import rank, world_size
from stages.model.device import environment
from stages.model.exactness import choose_layout
from stages.model.forward import pinned
from stages.params import Train
from stages.paths import CHECKPOINTS
from stages.text.example import Example
from stages.text.prompt import Prompt
from stages.train.callbacks import EvaluateAtEnd, KeepAdapter, PrintProgress, StopOnSignal
from stages.train.dataset import Row, TrainingBatches, TrainingCollator
from stages.train.loss import LossLog
from stages.train.micro_batches import MicroBatches
from stages.train.nan_guard import NanGuard, require_finite_parameters
from stages.train.parallel import broadcast_trained, keep_unwrapped
from stages.train.passes import Passes
from stages.train.resume import PROGRESS_FILE, ResumeCheckpoints, Spent
from stages.train.validation import Validation


class LabelTrainer(Trainer):
    """Trains adapters on the answers' tokens and evaluates them on `valid`.

    Args:
        model: the base model with adapters.
        args: the Trainer's arguments, as `training_arguments` gives them.
        params: the section train of params.yaml.
        rows: the training rows, as `training_rows` gives them.
        valid: validation examples.
        prompt: the prompt around each text.
        resume_checkpoints: where resume checkpoints are kept; the checkpoints of evaluations are written beside them.
    """

    model: PeftModel

    def __init__(
        self,
        model: PeftModel,
        args: TrainingArguments,
        params: Train,
        rows: list[Row],
        valid: list[Example],
        prompt: Prompt,
        resume_checkpoints: ResumeCheckpoints,
    ):
        rows = [row | {"row": number} for number, row in enumerate(rows)]
        self.stop = StopOnSignal()
        self.validation = Validation(valid, prompt, params)
        self.nan_guard = NanGuard(rows)
        super().__init__(
            model,
            args,
            data_collator=TrainingCollator.of(rows, prompt.tokenizer.pad_token_id),
            train_dataset=rows,
            eval_dataset=valid,
            callbacks=[
                EarlyStoppingCallback(params.early_stopping_patience),
                EvaluateAtEnd(),
                self.stop,
                KeepAdapter(resume_checkpoints.folder / CHECKPOINTS.name, self.validation),
                self.nan_guard,
                PrintProgress(),
            ],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # so that the Trainer counts the step's tokens, whatever the model takes
        keep_unwrapped(self.accelerator)
        if args.world_size > 1:
            broadcast_trained(model)
        choose_layout(model, prompt)
        model.train()  # all of it: the base model was loaded in eval mode
        self.prompt, self.resume_checkpoints = prompt, resume_checkpoints
        self.batches = TrainingBatches(rows, params, rank(), world_size())
        self.passes = Passes(model, params, prompt)
        self.micro_batches = MicroBatches(self.passes, params, self.batches, self.data_collator)
        # Their own would visit every module at each step, which takes 13 ms in 28 layers.
        model.zero_grad = lambda set_to_none=True: self.micro_batches.zero_gradients()  # type: ignore[method-assign]
        self.accelerator.clip_grad_norm_ = lambda parameters, norm, norm_type=2: self.passes.gradients.clip(norm)
        self.loss_log = LossLog(self.accelerator)
        self.spent = Spent(args.device)
        self.facts: dict[str, Any] = {
            "rows": len(rows),
            "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        }

    def train_to_end(self, state: Path | None) -> Path:
        """Trains, from a resume checkpoint if there is one, and returns the last one. A signal ends the process, with
        its step saved."""
        self.restore(read_json(state / PROGRESS_FILE) if state else None)
        with self.stop.listening():
            self.train(resume_from_checkpoint=str(state) if state else None)
        if not self.finished:
            self.stop.end_process(self.state, self.resume_checkpoints.folder)
        newest = self.resume_checkpoints.newest()
        assert newest is not None, "the last step was saved"
        return newest

    @property
    def finished(self) -> bool:
        """Whether no step is to come: the last is done, or valid got no better for too long."""
        (early,) = (each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback))
        stopped_early = early.early_stopping_patience_counter >= early.early_stopping_patience
        return self.state.global_step >= self.state.max_steps or stopped_early

    def progress(self) -> dict[str, Any]:
        """What a resume checkpoint holds beside the Trainer's state. Each process finds out for itself what fits in its
        memory; with several, the most counts."""
        here = [self.micro_batches.least, self.passes.saves_memory, self.spent.peak_memory_bytes()]
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
            "environment": environment(self.args.device),
            "facts": self.facts | {"steps": self.state.global_step, "epochs": self.state.epoch},
        }

    def restore(self, progress: dict[str, Any] | None) -> None:
        """Continues from what `progress` gave, or from the start, and starts the clock."""
        if progress is None:
            self.spent.resume(0.0, 0)
            return
        self.loss_log.restore(progress["losses"], progress["logged_step"])
        self.micro_batches.least = progress["pieces"]
        if progress["memory_profile"] and not self.passes.saves_memory:
            self.passes.save_memory()
        self.spent.resume(progress["seconds"], progress["peak_memory_bytes"])

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        # As if for one process: the sampler has distributed each batch; accelerate would distribute whole batches.
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=False)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The step's batches, and the number of its answer tokens in all processes. They are counted on the CPU, and a
        plain copy to a GPU would wait for all that it has to do."""
        batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, torch.device("cpu"))
        if tokens is not None and self.args.world_size > 1:
            tokens = pinned(tokens, device).to(device, non_blocking=True)  # type: ignore[arg-type]
            torch.distributed.all_reduce(tokens)
        return batches, tokens

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        if not self.model.training:  # train() visits every module
            self.model.train()
        loss = self.micro_batches.add_gradients(inputs, num_items_in_batch)
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            self.passes.gradients.add_over_processes()
        self.nan_guard.note_loss(loss, self.state.global_step + 1, inputs["rows"].tolist())
        self.loss_log.note(loss)
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> torch.Tensor:
        """The loss itself is `answer_loss`; training takes it through `training_step`."""
        return self.passes.loss(inputs, num_items_in_batch)

    def _get_grad_norm(self, model, grad_norm=None) -> torch.Tensor:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.nan_guard.note_norm(norm, self.state.global_step + 1)
        return norm

    def floating_point_ops(self, inputs) -> int:
        return 0  # the Trainer would count all parameters at each step, for a figure that nobody here reads

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs the mean loss since the last line, also where an earlier process computed a part of it."""
        if "loss" in logs:
            logs["loss"] = self.loss_log.mean(self.state.global_step)
        super().log(logs, start_time)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        found = self.validation.metrics(self.model, self.state.global_step)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        # Here, not in a callback: the Trainer puts a restored EarlyStoppingCallback behind all others.
        self.control.should_save |= self.control.should_training_stop
        return metrics

    def _save_checkpoint(self, model, trial) -> None:
        """Makes the Trainer write where ResumeCheckpoints publishes it, whole or not at all. The callback on_save would
        come too late: a disk that is full ends the Trainer's writing with an error."""
        require_finite_parameters(self.model, self.state.global_step)
        with self.resume_checkpoints.saving(self.state.global_step, self.progress()) as folder:
            self.args.output_dir = str(folder)
            super()._save_checkpoint(model, trial)
