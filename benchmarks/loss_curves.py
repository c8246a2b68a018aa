"""Whether the profiles learn as plain passes do: their losses, step by step on the same batches, beside the spread that
other first adapters make.

python -m benchmarks.loss_curves STEPS BATCH   (models/base and data/processed/train.jsonl lie there)
"""

import dataclasses
import itertools
import statistics
import tempfile
from pathlib import Path

from benchmarks import RESULTS, arguments, require_gpu_and_base, whole_number
from stages import params
from stages.artifacts import write_csv, write_json
from stages.command import run
from stages.model.device import environment, pick_device
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import attach_adapter
from stages.params import Params
from stages.paths import PROCESSED
from stages.text.example import read_examples
from stages.text.prompt import build_prompt
from stages.train.arguments import training_arguments
from stages.train.dataset import training_rows
from stages.train.resume import ResumeCheckpoints
from stages.train.trainer import LabelTrainer

WINDOW = 10  # steps whose mean loss is compared
SEEDS = {"plain": (42, 43, 44, 45, 46), "speed": (42, 43), "memory": (42, 43)}  # of the adapter's first weights


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
        trainer = LabelTrainer(model, arguments, train, rows, examples[:8], prompt, ResumeCheckpoints(Path(folder), 1))
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def report(curves: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """How far apart two runs are: the mean and the largest difference of their losses, each averaged over WINDOW steps.
    A profile's run is compared with plain's from the same adapter; `spread`: the most of any two of plain's."""
    means = {
        name: [statistics.mean(curve[start : start + WINDOW]) for start in range(0, len(curve), WINDOW)]
        for name, curve in curves.items()
    }

    def apart(one: str, other: str) -> dict[str, float]:
        differences = [abs(a - b) for a, b in zip(means[one], means[other], strict=True)]
        return {"mean": statistics.mean(differences), "largest": max(differences)}

    plain = [name for name in curves if name.startswith("plain")]
    pairs = [apart(*pair) for pair in itertools.combinations(plain, 2)]
    spread = {key: max(pair[key] for pair in pairs) for key in ("mean", "largest")}
    return {name: apart(name, f"plain {name.split()[1]}") for name in curves if name not in plain} | {"spread": spread}


def main() -> None:
    steps, batch = (whole_number(text, "STEPS or BATCH") for text in arguments("STEPS BATCH", most=2))
    require_gpu_and_base()
    chosen = params.load()
    curves = {}
    for profile, seed in ((profile, seed) for profile, seeds in SEEDS.items() for seed in seeds):
        name = f"{profile} {seed}"
        print(f"curves: {name}", flush=True)
        curves[name] = losses(chosen, profile, seed, steps, batch)
        rows = [
            {"step": step, **dict(zip(curves, row, strict=True))}
            for step, row in enumerate(zip(*curves.values(), strict=True), 1)
        ]
        write_csv(RESULTS / "curves.csv", rows, ["step", *curves])
    facts = {"steps": steps, "batch": batch, "model": chosen.model_name, "method": chosen.method_name}
    write_json(RESULTS / "curves.json", report(curves) | facts | {"environment": environment(pick_device())})


if __name__ == "__main__":
    run(main)
