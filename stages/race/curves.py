"""Whether the profiles learn as plain passes do: their losses, step by step on the same batches, beside the spread that
another first adapter makes.

python -m stages.race.curves STEPS BATCH   (models/base and data/processed/train.jsonl lie there)
"""

import dataclasses
import statistics
import tempfile
from pathlib import Path

from stages import params, run
from stages.model.adapter import attach_adapter
from stages.model.device import environment, pick_device
from stages.model.load import load_base, load_tokenizer
from stages.params import Params
from stages.paths import METRICS, PLOTS, PROCESSED
from stages.race import arguments, require_gpu_and_base, whole_number
from stages.report import write_csv, write_json
from stages.text.example import read_examples
from stages.text.prompt import build_prompt
from stages.train.states import States
from stages.train.trainer import LabelTrainer, training_arguments, training_rows

WINDOW = 10  # steps whose mean loss is compared
RUNS = {  # profile, and the seed of the adapter's first weights
    "plain": ("plain", 42),
    "speed": ("speed", 42),
    "memory": ("memory", 42),
    "plain, another adapter": ("plain", 43),
    "plain, a third adapter": ("plain", 44),
}


def losses(chosen: Params, profile: str, seed: int, steps: int, batch: int) -> list[float]:
    """Of each step."""
    train = dataclasses.replace(
        chosen.train, profile=profile, per_device_train_batch_size=batch, max_tokens_per_batch=None, lora_dropout=0.0,
        train_sampling_strategy="random", num_train_epochs=100, logging_steps=1, eval_steps=10**6, save_steps=10**6,
    )  # fmt: skip
    prompt = build_prompt(load_tokenizer(), **dataclasses.asdict(chosen.prompt))
    examples = read_examples(PROCESSED / "train.jsonl")
    rows, _ = training_rows(examples, prompt, train.loss)
    model = attach_adapter(load_base(chosen.method), dataclasses.replace(train, seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(train, pick_device(), Path(folder))
        arguments.max_steps = steps
        trainer = LabelTrainer(model, arguments, train, rows, examples[:8], prompt, States(Path(folder), 1))
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def report(curves: dict[str, list[float]]) -> dict[str, float]:
    """The largest difference from plain's curve, of means over WINDOW steps; `spread`: the other adapters'."""
    means = {
        name: [statistics.mean(curve[start : start + WINDOW]) for start in range(0, len(curve), WINDOW)]
        for name, curve in curves.items()
    }
    largest = {
        name: max(abs(one - other) for one, other in zip(mean, means["plain"], strict=True))
        for name, mean in means.items()
        if name != "plain"
    }
    spread = [largest.pop(name) for name in list(largest) if name.startswith("plain")]
    return {**largest, "spread": max(spread)}


def main() -> None:
    steps, batch = (whole_number(text, "STEPS or BATCH") for text in arguments("STEPS BATCH", most=2))
    require_gpu_and_base()
    chosen = params.load()
    curves = {}
    for name, (profile, seed) in RUNS.items():
        print(f"curves: {name}", flush=True)
        curves[name] = losses(chosen, profile, seed, steps, batch)
        rows = [
            {"step": step, **dict(zip(curves, row, strict=True))}
            for step, row in enumerate(zip(*curves.values(), strict=True), 1)
        ]
        write_csv(PLOTS / "curves.csv", rows, ["step", *curves])
    facts = {"steps": steps, "batch": batch, "model": chosen.model_name, "method": chosen.method_name}
    differences = {"largest_difference_from_plain": report(curves)}
    write_json(METRICS / "curves.json", differences | facts | {"environment": environment(pick_device())})


if __name__ == "__main__":
    run(main)
