"""Callbacks: checkpoints of evaluations, a last evaluation, a signal to stop, progress."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState

from stages.artifacts import replacing_folder, write_csv
from stages.distributed import is_main_process
from stages.model.device import Arriving
from stages.paths import VALID_SCORES
from stages.train.validation import Validation


class KeepAdapter(TrainerCallback):
    """Saves the adapter and the scores of valid in checkpoint-STEP at each evaluation; no base weights, no pickles."""

    def __init__(self, folder: Path, validation: Validation):
        self.folder, self.validation = folder, validation

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        with replacing_folder(self.folder / f"checkpoint-{state.global_step}") as checkpoint:
            if not is_main_process():
                return
            config = model.active_peft_config
            config.target_modules = sorted(config.target_modules)  # peft has a set: other processes, other order
            model.save_pretrained(checkpoint, safe_serialization=True)
            (checkpoint / "README.md").unlink(missing_ok=True)  # peft's empty card; select writes a real one
            write_csv(checkpoint / VALID_SCORES, self.validation.rows(), ["y_true", "log_odds"])


class EvaluateAtEnd(TrainerCallback):
    """Evaluates the last step, also where `eval_steps` does not divide the number of steps."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


class PrintProgress(TrainerCallback):
    """Prints a line for all that is logged, with the step and the time that is left. For the Trainer's own printer."""

    def __init__(self):
        self.start, self.first = 0.0, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.start, self.first = time.monotonic(), state.global_step

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_local_process_zero or not logs or "train_runtime" in logs:
            return
        on_valid = any(name.startswith("eval_") for name in logs)
        names = [name for name in logs if name not in ("epoch", "total_flos")]
        values = ", ".join(f"{name.removeprefix('eval_')} {float(logs[name]):.4g}" for name in names)
        seconds = (time.monotonic() - self.start) / max(1, state.global_step - self.first)
        left = seconds * (state.max_steps - state.global_step)
        print(
            f"train: step {state.global_step} of {state.max_steps}, {'valid: ' * on_valid}{values}; "
            f"{f'{left / 60:.0f} min' if left >= 120 else f'{left:.0f} s'} left"
        )


class StopOnSignal(TrainerCallback):
    """SIGTERM and the first Ctrl-C let the step end, save its state and stop; a second one ends the process at once.

    With several processes, a signal to one stops all, one step later: after every step they share what they received,
    and they read the result after the next step. By then it has arrived, so no CPU waits for its GPU.
    """

    def __init__(self):
        self.signal: int | None = None  # that all processes know of
        self.received: int | None = None  # by this process
        self.answer: Arriving | None = None
        self.before: dict[int, Any] = {}  # the handlers of the time before

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handles signals within the block."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before[number] = signal.signal(number, self.receive)
        try:
            yield
        finally:
            for earlier, handler in self.before.items():
                signal.signal(earlier, handler)

    def receive(self, number, frame):
        self.received = number
        signal.signal(number, self.before[number])

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size == 1:
            self.signal = self.received
        else:
            if self.answer is not None:
                self.signal = int(self.answer.read()) or None
            highest = torch.full((), self.received or 0, device=args.device)
            torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
            self.answer = Arriving.sent(highest)
        if self.signal is not None:
            control.should_save = control.should_training_stop = True

    def end_process(self, state: TrainerState, folder: Path) -> None:
        """Exits with the signal's status if one has stopped the training. folder: of its resume checkpoints."""
        if self.signal is None:
            return
        print(
            f"train: stopped by signal {self.signal} at step {state.global_step} of {state.max_steps}, saved in "
            f"{folder}: `dvc repro` resumes from there",
            file=sys.stderr,
        )
        sys.exit(128 + self.signal)
