"""Chooses a checkpoint, a temperature and a threshold on valid, and writes the model that is evaluated and used.

The checkpoint is loaded as evaluate and predict load it (with adapters merged into unquantized weights), and scores
valid anew. So the threshold fits exactly the scores that they compute.

python -m stages.select
"""

import dataclasses
from pathlib import Path

import numpy as np

from stages import params
from stages.artifacts import read_csv, read_json, write_json
from stages.classifier.card import model_card
from stages.classifier.trained import TrainedClassifier, load_classifier, write_classifier
from stages.command import run
from stages.metrics import (
    ThresholdRule,
    calibrated,
    choose_threshold,
    fit_temperature,
    metrics_at_fraction,
    score_metrics,
)
from stages.model.lora import merge_unquantized
from stages.model.provenance import read_identity, require_whole_base
from stages.model.scoring import SCORING, label_scores, require_finite
from stages.params import Params
from stages.paths import BASE_MODEL, CHECKPOINTS, METRICS, PLOTS, PROCESSED, PROMPT_FILE, SELECTED
from stages.select.checkpoint import best_row
from stages.text.example import read_examples


def main() -> None:
    chosen = params.load()
    best = best_row(read_csv(PLOTS / "valid.csv"), chosen.select.metric)
    step = int(best["step"])
    checkpoint = CHECKPOINTS / f"checkpoint-{step}"
    y_true, log_odds = score_valid(chosen, checkpoint)
    temperature = fit_temperature(y_true, log_odds)
    probability = calibrated(log_odds, temperature)
    select = dataclasses.asdict(chosen.select)
    threshold = choose_threshold(y_true, probability, ThresholdRule.from_section(select))
    valid = {"loss": float(best["loss"]), **score_metrics(y_true, probability, threshold, log_odds)}
    promised = metrics_at_fraction(y_true, probability, threshold, chosen.select.fraud_fraction, log_odds)
    selected = TrainedClassifier(
        step=step,
        threshold=threshold,
        temperature=temperature,
        speakers_removed=chosen.removes_speakers,
        valid=valid,
        promised=promised,
        select=select,
        method_name=chosen.method_name,
        method=dataclasses.asdict(chosen.method),
        prompt=dataclasses.asdict(chosen.prompt),
        base=read_identity(BASE_MODEL),
        dataset_name=chosen.dataset_name,
        rendered=read_json(CHECKPOINTS / PROMPT_FILE),
        scoring=SCORING,
        max_tokens_per_batch=chosen.evaluate.max_tokens_per_batch,
    )
    write_classifier(SELECTED, checkpoint, selected, model_card(selected))
    report = {"step": step, "threshold": threshold, "temperature": temperature, "valid": valid, "promised": promised}
    write_json(METRICS / "select.json", report)
    print(f"select: checkpoint-{step}, threshold {threshold:.4f}, valid F1 {valid['f1']:.3f}")


def score_valid(chosen: Params, checkpoint: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels (bool) and log-odds of valid, both of shape (N,), from the weights that evaluate and predict will use."""
    require_whole_base(BASE_MODEL)
    rendered = read_json(CHECKPOINTS / PROMPT_FILE)
    model, prompt = load_classifier(checkpoint, chosen.method, dataclasses.asdict(chosen.prompt), rendered, BASE_MODEL)
    merge_unquantized(model)
    examples = read_examples(PROCESSED / "valid.jsonl")
    texts = [example.input for example in examples]
    scores = label_scores(model, prompt, texts, chosen.evaluate.max_tokens_per_batch, "valid")
    require_finite(scores.log_odds, [example.source for example in examples])
    return np.array([example.label for example in examples]), scores.log_odds


if __name__ == "__main__":
    run(main, distributed=True, options=False)
