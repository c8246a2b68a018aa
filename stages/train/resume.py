"""Resume checkpoints: what the next run continues from when a training is interrupted, in whatever way.

They lie in runs/train/FINGERPRINT/state-STEP, outside DVC's outputs, which DVC deletes before a stage. The fingerprint
hashes params, texts, base model, code and libraries, so no training resumes another one. A resume checkpoint is written
under another name, with the hash of each of its files, and renamed when it is whole.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from stages.artifacts import read_json, replacing_folder
from stages.code import ROOT, imported_files
from stages.distributed import is_main_process, wait_for_all
from stages.errors import UserError
from stages.model.device import LIBRARIES, peak_memory_bytes
from stages.model.provenance import file_sha256, read_identity
from stages.params import Params
from stages.paths import BASE_MODEL, PROCESSED

HASHES_FILE = "hashes.json"
PROGRESS_FILE = "progress.json"
STATE = "state-"
NO_RESULT = ("save_steps", "save_total_limit")  # keys of train that do not change results


def fingerprint(chosen: Params, device: torch.device) -> str:
    """16 hex digits that hash everything a training's result depends on, except the model of the GPU."""
    train = {key: value for key, value in dataclasses.asdict(chosen.train).items() if key not in NO_RESULT}
    whole = {
        "method": dataclasses.asdict(chosen.method),
        "prompt": dataclasses.asdict(chosen.prompt),
        "train": train,
        "base": read_identity(BASE_MODEL),
        "texts": [file_sha256(PROCESSED / f"{name}.jsonl") for name in ("train", "valid")],
        "code": {file: file_sha256(ROOT / file) for file in imported_files("stages.train.__main__")},
        "libraries": [importlib.metadata.version(name) for name in (*LIBRARIES, "tokenizers")],
        "device": device.type,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


class Spent:
    """Seconds and peak memory that a training has used, in this process and in those that it resumes."""

    def __init__(self, device: torch.device):
        self.device = device
        self.resume(0.0, 0)

    def resume(self, seconds: float, peak_memory_bytes: int) -> None:
        """Starts the clock; adds what earlier processes used."""
        self.earlier_seconds, self.earlier_peak = seconds, peak_memory_bytes
        self.started = time.perf_counter()

    def seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started

    def peak_memory_bytes(self) -> int:
        return max(self.earlier_peak, peak_memory_bytes(self.device))


class ResumeCheckpoints:
    """The resume checkpoints of one training, in `folder`; the `keep` newest are kept."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Locks the folder for this process. Raises UserError where another process holds the lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not is_main_process():
            yield
            return
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another process trains the same thing in {self.folder}: wait until it ends, or stop it; this run "
                    "changed nothing"
                ) from None
            yield

    @contextlib.contextmanager
    def saving(self, step: int, progress: dict[str, Any]) -> Iterator[Path]:
        """A folder to write the resume checkpoint of a step to. It is published at the end of the block, and the oldest
        ones are removed.

        progress: what is written beside the Trainer's files, in PROGRESS_FILE.
        """
        with replacing_folder(self.folder / f"{STATE}{step}") as folder:
            yield folder
            wait_for_all()
            if is_main_process():
                keep_resumed_files(folder)
                (folder / PROGRESS_FILE).write_text(json.dumps(progress), encoding="utf-8")
                hashes = {file.name: file_sha256(file) for file in sorted(folder.iterdir())}
                (folder / HASHES_FILE).write_text(json.dumps(hashes), encoding="utf-8")
        if is_main_process():
            for old in self.all()[self.keep :]:
                shutil.rmtree(old)

    def all(self) -> list[Path]:
        """All of them, the newest first."""
        found = [path for path in self.folder.glob(f"{STATE}*") if path.name.removeprefix(STATE).isdigit()]
        return sorted(found, key=lambda path: -int(path.name.removeprefix(STATE)))

    def newest(self) -> Path | None:
        """The newest one that is whole. A damaged one is reported and removed."""
        if not is_main_process():
            wait_for_all()
        found = next(self.whole(), None)
        if is_main_process():
            wait_for_all()
        return found

    def whole(self) -> Iterator[Path]:
        """Those that are whole, the newest first. Damaged ones are reported and removed on the way."""
        for state in self.all():
            fault = self.fault(state)
            if fault is None:
                yield state
                continue
            print(
                f"train: {state} can't be used ({fault}) and is removed; training resumes from an earlier one, or from "
                "the start"
            )
            shutil.rmtree(state)

    @staticmethod
    def fault(state: Path) -> str | None:
        """What is wrong with a resume checkpoint; None where it is whole."""
        try:
            hashes = read_json(state / HASHES_FILE)
        except (OSError, ValueError):
            return f"its {HASHES_FILE} is missing or torn"
        present = {file.name for file in state.iterdir()} - {HASHES_FILE}
        if present != hashes.keys():
            return f"{', '.join(sorted(present ^ hashes.keys()))} missing or unexpected"
        changed = [name for name, sha256 in hashes.items() if file_sha256(state / name) != sha256]
        return f"{', '.join(changed)} changed since it was written" if changed else None


def prune_finished(trainings: Path, current: Path) -> None:
    """Removes the folders of other trainings that have finished. Unfinished ones are kept so that they can be resumed.

    trainings: the folder of all trainings; current: that of this one.
    """
    for folder in trainings.iterdir():
        if folder == current or not folder.is_dir():
            continue
        states = ResumeCheckpoints(folder, 1).all()
        with contextlib.suppress(OSError, ValueError):
            if states and read_json(states[0] / PROGRESS_FILE)["finished"]:
                shutil.rmtree(folder)


def keep_resumed_files(folder: Path) -> None:
    """Moves the Trainer's files up from checkpoint-STEP, and removes those that resuming does not read: pickled
    arguments and peft's empty model card."""
    for written in folder.glob("checkpoint-*"):
        for name in ("training_args.bin", "README.md"):
            (written / name).unlink(missing_ok=True)
        for file in written.iterdir():
            file.rename(folder / file.name)
        written.rmdir()
