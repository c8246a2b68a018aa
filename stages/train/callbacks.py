"""What happens beside the optimizer's steps: history, checkpoints, a last evaluation."""

from pathlib import Path

from transformers import TrainerCallback

from stages.paths import VALID_SCORES
from stages.report import write_csv

TRAIN_COLUMNS = ["step", "epoch", "loss", "learning_rate", "grad_norm"]
VALID_COLUMNS = ["step", "epoch", "loss", "average_precision", "roc_auc", "f1"]


class History(TrainerCallback):
    """Collects what the Trainer logs, training and evaluation apart. No timings: equal runs give equal files."""

    def __init__(self):
        self.train: list[dict] = []
        self.valid: list[dict] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        step = {"step": state.global_step, "epoch": state.epoch}
        if "eval_loss" in logs:
            self.valid.append(step | {key.removeprefix("eval_"): value for key, value in logs.items()} | step)
        elif "loss" in logs:
            self.train.append(logs | step)

    def write(self, train: Path, valid: Path) -> None:
        write_csv(train, self.train, TRAIN_COLUMNS)
        write_csv(valid, self.valid, VALID_COLUMNS)


class KeepAdapter(TrainerCallback):
    """Saves the adapter and the scores of valid at each evaluation, in checkpoint-STEP: no base weights, no pickles."""

    def __init__(self, folder: Path, trainer):
        self.folder, self.trainer = folder, trainer

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        checkpoint = self.folder / f"checkpoint-{state.global_step}"
        config = model.active_peft_config
        config.target_modules = sorted(config.target_modules)  # peft's set has another order in another process
        model.save_pretrained(checkpoint, safe_serialization=True)
        (checkpoint / "README.md").unlink(missing_ok=True)  # peft's empty form; the select stage writes a real card
        scores = self.trainer.valid_scores.log_probability
        rows = (
            {"y_true": int(example.label), "log_p_false": repr(float(false)), "log_p_true": repr(float(true))}
            for example, (false, true) in zip(self.trainer.eval_dataset, scores, strict=True)
        )
        write_csv(checkpoint / VALID_SCORES, rows, ["y_true", "log_p_false", "log_p_true"])


class EvaluateAtEnd(TrainerCallback):
    """The last step is evaluated too, also where `eval_steps` does not divide the number of steps."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
