"""Trains adapters, with a checkpoint and the scores of valid at every evaluation. A training that was ended goes on
from its last saved state.

python -m stages.train
"""

import dataclasses
import shutil
from pathlib import Path

import torch

from stages import params
from stages.artifacts import read_json, replacing_folder, write_json
from stages.command import run
from stages.distributed import is_main_process
from stages.model.device import environment, pick_device, reset_peak_memory
from stages.model.fsdp import shard_layers
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import attach_adapter
from stages.model.provenance import require_whole_base
from stages.params import Params
from stages.paths import BASE_MODEL, CHECKPOINTS, METRICS, PLOTS, PROCESSED, PROMPT_FILE, RUNS
from stages.text.example import read_examples
from stages.text.prompt import build_prompt, report_truncated, tells_the_date
from stages.train.arguments import report_replaced, training_arguments
from stages.train.callbacks import write_history
from stages.train.dataset import training_rows
from stages.train.resume import PROGRESS_FILE, ResumeCheckpoints, fingerprint, prune_finished
from stages.train.trainer import LabelTrainer


def main() -> None:
    chosen = params.load()
    report_replaced(chosen)
    device = pick_device()
    require_whole_base(BASE_MODEL)
    trainings = RUNS / "train"
    states = ResumeCheckpoints(trainings / fingerprint(chosen, device), chosen.train.save_total_limit)
    with states.held():
        if is_main_process():
            prune_finished(trainings, states.folder)
        state = states.newest()
        if state is None or not read_json(state / PROGRESS_FILE)["finished"]:
            state = train(chosen, device, states, state)
        publish(state, states.folder / CHECKPOINTS.name, device)


def train(chosen: Params, device: torch.device, states: ResumeCheckpoints, state: Path | None) -> Path:
    """Trains, from a state if there is one, to the end. Returns the last state."""
    examples, valid = (read_examples(PROCESSED / f"{name}.jsonl") for name in ("train", "valid"))
    # As the training began with it: a chat template may write today's date, and a run may go past midnight.
    rendered = read_json(state / PROGRESS_FILE)["prompt"] if state else None
    tokenizer = load_tokenizer()
    prompt = build_prompt(tokenizer, **dataclasses.asdict(chosen.prompt), rendered=rendered)
    if tells_the_date(tokenizer):
        print("train: the base model's chat template writes the date; all later stages use the prompt of this training")
    rows, truncated = training_rows(examples, prompt, chosen.train.loss)
    report_truncated("train", "train", truncated, len(rows), prompt.truncation_side)
    reset_peak_memory(device)
    model = shard_layers(attach_adapter(load_base(chosen.method), chosen.train), chosen.method)
    arguments = training_arguments(chosen.train, device, states.folder)
    trainer = LabelTrainer(model, arguments, chosen.train, rows, valid, prompt, states)
    trainer.facts["rows_truncated"] = truncated
    if state:
        print(f"train: goes on from {state}")
    return trainer.train_to_end(state)


def publish(state: Path, checkpoints: Path, device: torch.device) -> None:
    """Writes the stage's outputs from what the training left in its folder."""
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
    write_json(METRICS / "train.json", {"facts": facts, "measured": measured, "environment": environment(device)})


if __name__ == "__main__":
    run(main, distributed=True)
