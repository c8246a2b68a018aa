"""The stage's outputs, from what a training left in its folder: checkpoints, history, metrics."""

import shutil
from pathlib import Path
from typing import Any

from stages.artifacts import read_json, replacing_folder, write_csv, write_json
from stages.distributed import is_main_process
from stages.paths import CHECKPOINTS, PLOTS, PROMPT_FILE, TRAIN_FIGURES
from stages.train.resume import PROGRESS_FILE

TRAIN_COLUMNS = ["step", "epoch", "loss", "learning_rate", "grad_norm"]
VALID_COLUMNS = ["step", "epoch", "loss", "average_precision", "roc_auc", "f1"]


def publish(state: Path, checkpoints: Path) -> None:
    """Writes the stage's outputs. The environment is that of the last steps, which may not be this one.

    Args:
        state: the last resume checkpoint.
        checkpoints: folder of the checkpoints of evaluations.
    """
    progress = read_json(state / PROGRESS_FILE)
    with replacing_folder(CHECKPOINTS) as folder:
        if is_main_process():
            shutil.copytree(checkpoints, folder, dirs_exist_ok=True)
            write_json(folder / PROMPT_FILE, progress["prompt"])
    log_history = read_json(state / "trainer_state.json")["log_history"]
    write_history(log_history, PLOTS / "train.csv", PLOTS / "valid.csv")
    facts, seconds = progress["facts"], progress["seconds"]
    measured = {
        "seconds": seconds,
        "samples_per_second": facts["rows"] * facts["epochs"] / seconds,
        "peak_memory_bytes": progress["peak_memory_bytes"],
    }
    write_json(TRAIN_FIGURES, {"facts": facts, "measured": measured, "environment": progress["environment"]})


def split_history(log_history: list[dict[str, Any]]) -> tuple[list[dict], list[dict]]:
    """The Trainer's log as rows of training and rows of evaluation. Without timings: equal runs give equal files."""
    train = [row for row in log_history if "loss" in row]
    valid = [row for row in log_history if "eval_loss" in row]
    return train, [{key.removeprefix("eval_"): value for key, value in row.items()} for row in valid]


def write_history(log_history: list[dict[str, Any]], train: Path, valid: Path) -> None:
    """Writes the Trainer's log to two CSV files."""
    rows, valid_rows = split_history(log_history)
    write_csv(train, rows, TRAIN_COLUMNS)
    write_csv(valid, valid_rows, VALID_COLUMNS)
