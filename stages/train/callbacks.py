"""What happens beside the optimizer's steps: checkpoints, a last evaluation, a signal to stop; and the history."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from stages.artifacts import replacing_folder, write_csv
from stages.distributed import is_main_process
from stages.model.device import Arriving
from stages.paths import VALID_SCORES
from stages.train.validation import Validation

TRAIN_COLUMNS = ["step", "epoch", "loss", "learning_rate", "grad_norm"]
VALID_COLUMNS = ["step", "epoch", "loss", "average_precision", "roc_auc", "f1"]


def split_history(log_history: list[dict[str, Any]]) -> tuple[list[dict], list[dict]]:
    """What the Trainer logged, training and evaluation apart. No timings: equal runs give equal files."""
    train = [row for row in log_history if "loss" in row]
    valid = [row for row in log_history if "eval_loss" in row]
    return train, [{key.removeprefix("eval_"): value for key, value in row.items()} for row in valid]


def write_history(log_history: list[dict[str, Any]], train: Path, valid: Path) -> None:
    for path, rows, columns in zip(
        (train, valid), split_history(log_history), (TRAIN_COLUMNS, VALID_COLUMNS), strict=True
    ):
        write_csv(path, rows, columns)


class KeepAdapter(TrainerCallback):
    """Saves the adapter and the scores of valid at each evaluation, in checkpoint-STEP: no base weights, no pickles."""

    def __init__(self, folder: Path, validation: Validation):
        self.folder, self.validation = folder, validation

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        control.should_save = control.should_save or control.should_training_stop  # the end, too, is a state
        with replacing_folder(self.folder / f"checkpoint-{state.global_step}") as checkpoint:
            if not is_main_process():
                return
            config = model.active_peft_config
            config.target_modules = sorted(config.target_modules)  # peft's set has another order in another process
            model.save_pretrained(checkpoint, safe_serialization=True)
            (checkpoint / "README.md").unlink(missing_ok=True)  # peft's empty form; the select stage writes a real card
            write_csv(checkpoint / VALID_SCORES, self.validation.rows(), ["y_true", "log_odds"])


class EvaluateAtEnd(TrainerCallback):
    """The last step is evaluated too, also where `eval_steps` does not divide the number of steps."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


class StopOnSignal(TrainerCallback):
    """SIGTERM and the first Ctrl-C let the step end, save the state and stop; a second one ends the process at once.

    Of several processes one that is told stops all, a step later: they ask each other after every step, and read the
    answer after the next, when it has long come, so that no CPU waits for its GPU.
    """

    def __init__(self):
        self.signal: int | None = None  # that all have heard of
        self.noted: int | None = None  # that this process was told
        self.answer: Arriving | None = None
        self.before: dict[int, Any] = {}

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before[number] = signal.signal(number, self.note)
        try:
            yield
        finally:
            for number, handler in self.before.items():
                signal.signal(number, handler)

    def note(self, number, frame):
        self.noted = number
        signal.signal(number, self.before[number])

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size == 1:
            self.signal = self.noted
        else:
            if self.answer is not None:
                self.signal = int(self.answer.read()) or None
            told = torch.full((), self.noted or 0, device=args.device)
            torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
            self.answer = Arriving.sent(told)
        if self.signal is not None:
            control.should_save = control.should_training_stop = True
