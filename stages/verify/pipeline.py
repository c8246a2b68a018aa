"""Runs the pipeline, or the evaluation of the pinned adapter, in processes of their own."""

import os
import subprocess
import sys

from stages.errors import UserError
from stages.paths import SELECTED

REPRO = [sys.executable, "-m", "stages.repro"]


def run_pipeline(device: str | None) -> None:
    """Runs all stages but benchmark, also those whose outputs DVC has: they may be of another machine. device "cpu"
    hides GPUs."""
    call([*REPRO, "--force", "report"], {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})


def run_evaluation() -> None:
    """Evaluates the adapter that dvc.lock pins, on a GPU. Raises UserError if there is no GPU or no adapter."""
    import torch

    if not torch.cuda.is_available():
        raise UserError("found no GPU that torch can use; expected one: `make verify` without DEVICE runs on a CPU")
    checkout = [sys.executable, "-m", "dvc", "checkout", SELECTED.as_posix()]
    if subprocess.run(checkout, capture_output=True).returncode:  # the cache lacks it
        try:
            call([sys.executable, "-m", "dvc", "pull", SELECTED.as_posix()])
        except UserError as error:
            raise UserError(
                f"{SELECTED} is neither in DVC's cache nor in a remote ({error}); expected the adapter that dvc.lock "
                "pins: add the remote that has it, or train it by `make verify` without DEVICE"
            ) from None
    call([*REPRO, "prepare"])  # and what it needs: the base model
    for stage in ("probe", "evaluate"):  # the cache may hold their outputs of a CPU
        call([*REPRO, "--single-item", "--force", stage])


def call(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=os.environ | (environment or {}))
    if done.returncode:
        shown = " ".join(["python", *command[1:]])
        raise UserError(f"`{shown}` ended with status {done.returncode}; expected 0: see above")
