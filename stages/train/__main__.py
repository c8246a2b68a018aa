"""Trains adapters, with a checkpoint and the scores of valid at every evaluation.

python -m stages.train
"""

import dataclasses
import time

from stages import params, run
from stages.model.adapter import attach_adapter
from stages.model.device import environment, peak_memory_bytes, pick_device, reset_peak_memory
from stages.model.load import load_base, load_tokenizer
from stages.paths import CHECKPOINTS, METRICS, PLOTS, PROCESSED, RUNS
from stages.report import write_json
from stages.text.example import read_examples
from stages.text.prompt import build_prompt
from stages.train.callbacks import History, KeepAdapter
from stages.train.trainer import LabelTrainer, training_arguments, training_rows


def main() -> None:
    chosen = params.load()
    device = pick_device()
    train, valid = (read_examples(PROCESSED / f"{name}.jsonl") for name in ("train", "valid"))
    prompt = build_prompt(load_tokenizer(), **dataclasses.asdict(chosen.prompt))
    rows, truncated = training_rows(train, prompt, chosen.train.loss)
    reset_peak_memory(device)
    model = attach_adapter(load_base(chosen.method), chosen.train)

    history = History()
    trainer = LabelTrainer(
        model, training_arguments(chosen.train, device, RUNS / "train"), chosen.train, rows, valid, prompt, history
    )
    trainer.add_callback(KeepAdapter(CHECKPOINTS, trainer))
    start = time.perf_counter()
    result = trainer.train()
    seconds = time.perf_counter() - start

    history.write(PLOTS / "train.csv", PLOTS / "valid.csv")
    facts = {
        "rows": len(rows),
        "rows_truncated": truncated,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "steps": result.global_step,
        "epochs": trainer.state.epoch,
    }
    measured = {
        "seconds": seconds,
        "samples_per_second": len(rows) * trainer.state.epoch / seconds,
        "peak_memory_bytes": peak_memory_bytes(device),
    }
    write_json(METRICS / "train.json", {"facts": facts, "measured": measured, "environment": environment(device)})


if __name__ == "__main__":
    run(main)
