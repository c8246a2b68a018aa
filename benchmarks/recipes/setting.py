"""What a recipe is given, and the stopwatch that times it and profiles its kernels."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.recipes.kernels import KernelProfile
from stages.errors import UserError
from stages.model.device import peak_memory_bytes, synchronize
from stages.params import Params
from stages.text.prompt import Prompt

WARM_UP, WINDOWS, WINDOW = 15.0, 5, 4.0  # seconds after the first step; number of windows; least seconds of each
STEPS = 100_000  # never reached
CHECKED = 8  # texts of the batch on which the recipes' losses are compared

Recipe = Callable[["Setting"], tuple[float, Callable[[], Any]]]


class Stopwatch(TrainerCallback):
    """Measures texts per second in windows after a warm-up, and the seconds until the first step ends. Then it profiles
    a few steps.

    batch: texts a step; None where a bound of tokens decides.
    """

    def __init__(self, device: torch.device, batch: int | None):
        self.device, self.batch = device, batch
        self.rates: list[float] = []
        self.first_step: float | None = None
        self.window: tuple[float, int] | None = None  # its start in seconds, and the texts done before it
        self.kernels = KernelProfile(device)
        self.peak: int | None = None  # bytes, when the last window ends: a profile takes memory, too

    def start(self) -> None:
        self.began = time.perf_counter()

    def count(self, done: int) -> bool:
        """Records that `done` texts are finished in all. Returns whether every window is measured, and the profile
        done."""
        if len(self.rates) == WINDOWS:
            return self.kernels.count()
        now = time.perf_counter()
        if self.first_step is None:
            synchronize(self.device)
            self.first_step = time.perf_counter() - self.began
            self.began = time.perf_counter()
        start, before = self.window or (self.began, 0)
        if now - start >= (WINDOW if self.window else WARM_UP):
            synchronize(self.device)
            now = time.perf_counter()
            if self.window:
                self.rates.append((done - before) / (now - start))
                self.peak = peak_memory_bytes(self.device)
            self.window = (now, done)
        return False

    def on_train_begin(self, args, state, control, **kwargs):
        found = args.train_batch_size * args.gradient_accumulation_steps
        if found != self.batch:
            raise UserError(f"the recipe's steps have {found} texts; expected {self.batch}, by which it is timed")
        self.start()

    def on_step_end(self, args, state, control, **kwargs):
        if self.count(state.global_step * self.batch):
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False

    def time_batches(self, score_batch: Callable[[int], int], batches: int) -> None:
        """Calls `score_batch` with 0, 1, … `batches` - 1, over and over, until the stopwatch has all.

        score_batch: takes a batch's number and returns how many texts it scored.
        """
        self.start()
        done = 0
        for number in itertools.cycle(range(batches)):
            done += score_batch(number)
            if self.count(done):
                return


@dataclass(frozen=True)
class Setting:
    """What every recipe gets.

    rows: input ids and labels of the training texts, with loss `completion`.
    batch: texts in an optimizer step.
    folder: a scratch folder.
    watch: a Trainer's callback that times the work: a Stopwatch, or one of the caller's own.
    """

    chosen: Params
    rows: list[dict[str, Any]]
    prompt: Prompt
    batch: int
    folder: str
    watch: Any
