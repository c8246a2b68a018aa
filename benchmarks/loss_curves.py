"""Compares the profiles' losses with plain's, step by step on the same batches, beside plain's own spread over seeds.

python -m benchmarks.loss_curves STEPS BATCH   (needs models/base and data/processed/train.jsonl)

Writes results/curves.json and results/curves.csv.
"""

import dataclasses
import itertools
import statistics
import tempfile
from pathlib import Path

from benchmarks.common import RESULTS, command_parser, positive_int, require_gpu_and_base
from stages import params
from stages.artifacts import write_csv, write_json
from stages.command import run
from stages.model.device import environment, pick_device
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import attach_adapter
from stages.params import Params, Profile
from stages.paths import PROCESSED
from stages.text.example import read_examples
from stages.text.prompt import build_prompt
from stages.train.arguments import training_arguments
from stages.train.dataset import training_rows
from stages.train.resume import ResumeCheckpoints
from stages.train.trainer import LabelTrainer

WINDOW = 10  # steps whose mean loss is compared
SEEDS: dict[Profile, tuple[int, ...]] = {
    "plain": (42, 43, 44, 45, 46),
    "speed": (42, 43),
    "memory": (42, 43),
}  # of the adapter's first weights


def training_losses(chosen: Params, profile: Profile, seed: int, steps: int, batch: int) -> list[float]:
    """Trains from a fresh adapter and returns the loss of each step.

    Args:
        chosen: the settings of params.yaml, whose model, method and prompt apply.
        profile: a train.profile.
        seed: of the adapter's first weights; the order of the batches does not depend on it.
        steps: optimizer steps to take.
        batch: texts in a step.
    """
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


def compare_curves(curves: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Mean and largest difference between two runs' losses, each averaged over WINDOW steps first.

    Args:
        curves: losses by step, of runs named "profile seed".

    Returns:
        For each run of another profile, its difference to plain's run of the same seed. `spread` is the largest
        difference between any two runs of plain.
    """
    means = {
        name: [statistics.mean(curve[start : start + WINDOW]) for start in range(0, len(curve), WINDOW)]
        for name, curve in curves.items()
    }

    def difference(one: str, other: str) -> dict[str, float]:
        differences = [abs(a - b) for a, b in zip(means[one], means[other], strict=True)]
        return {"mean": statistics.mean(differences), "largest": max(differences)}

    plain = [name for name in curves if name.startswith("plain")]
    pairs = [difference(*pair) for pair in itertools.combinations(plain, 2)]
    spread = {key: max(pair[key] for pair in pairs) for key in ("mean", "largest")}
    others = {name: difference(name, f"plain {name.split()[1]}") for name in curves if name not in plain}
    return others | {"spread": spread}


def main() -> None:
    parser = command_parser()
    parser.add_argument("steps", metavar="STEPS", type=positive_int, help="optimizer steps of each training")
    parser.add_argument("batch", metavar="BATCH", type=positive_int, help="texts in a step")
    options = parser.parse_args()
    require_gpu_and_base()
    chosen = params.load()
    curves: dict[str, list[float]] = {}
    for profile, seed in ((profile, seed) for profile, seeds in SEEDS.items() for seed in seeds):
        name = f"{profile} {seed}"
        print(f"loss_curves: {name}", flush=True)
        curves[name] = training_losses(chosen, profile, seed, options.steps, options.batch)
        rows = [
            {"step": step, **dict(zip(curves, row, strict=True))}
            for step, row in enumerate(zip(*curves.values(), strict=True), 1)
        ]
        write_csv(RESULTS / "curves.csv", rows, ["step", *curves])
    facts = vars(options) | {"model": chosen.model_name, "method": chosen.method_name}
    write_json(RESULTS / "curves.json", compare_curves(curves) | facts | {"environment": environment(pick_device())})


if __name__ == "__main__":
    run(main)
