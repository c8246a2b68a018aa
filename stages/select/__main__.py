"""Chooses a checkpoint, a system, a calibration and a threshold on valid, and writes what is evaluated and used.

The checkpoint is loaded as evaluate and predict load it (with adapters merged into unquantized weights), and scores
valid anew. So the threshold fits exactly the scores that they compute.

python -m stages.select
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from stages import params
from stages.artifacts import read_csv, read_json, write_json
from stages.bands import BandRule, choose_bands
from stages.classifier.card import model_card
from stages.classifier.shift import Reference, describe_valid
from stages.classifier.trained import VALID_FILE, TrainedClassifier, load_classifier, write_classifier
from stages.command import run
from stages.log_odds import STORED, read_log_odds
from stages.metrics import Calibration, ThresholdRule, choose_threshold, fit_calibration, score_metrics
from stages.model.lora import merge_unquantized
from stages.model.provenance import read_identity, require_whole_base
from stages.model.scoring import SCORING, label_scores, require_finite
from stages.params import Params
from stages.paths import BASE_MODEL, CHECKPOINTS, METRICS, PLOTS, PROCESSED, PROMPT_FILE, SELECTED
from stages.select.bands import promise_bands
from stages.select.checkpoint import chosen_row
from stages.select.promise import promise
from stages.select.system import choose_system, scores_of_systems
from stages.text.example import Example, read_examples


def main() -> None:
    chosen = params.load()
    row = chosen_row(read_csv(PLOTS / "valid.csv"), chosen.select.checkpoint, chosen.select.metric)
    step = int(row["step"])
    checkpoint = CHECKPOINTS / f"checkpoint-{step}"
    examples, of_model = score_valid(chosen, checkpoint)
    y_true, units = np.array([each.label for each in examples]), np.array([each.unit for each in examples])
    stored = {name: read_log_odds(folder / VALID_FILE, len(examples)) for name, folder in STORED.items()}
    systems = scores_of_systems({"model": of_model, **stored}, y_true, chosen.select.calibration)
    system, found = choose_system(chosen.select.system, systems, y_true)
    log_odds, parts = systems[system]
    calibration = fit_calibration(y_true, log_odds, chosen.select.calibration)
    warn_of_chance(calibration)
    probability = calibration.probability(log_odds)
    select = chosen.select.section()
    rule = ThresholdRule.from_section(select)
    threshold = choose_threshold(y_true, probability, rule)
    valid = {"loss": float(row["loss"]), **score_metrics(y_true, probability, threshold, log_odds)}
    promised = promise(y_true, units, log_odds, rule, chosen.select.calibration)
    selected = TrainedClassifier(
        step=step,
        threshold=threshold,
        temperature=calibration.temperature,
        offset=calibration.offset,
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
        system=system,
        parts={name: dataclasses.asdict(part) for name, part in parts.items()},
    )
    if bands := promised_bands(y_true, units, log_odds, selected):
        selected = dataclasses.replace(selected, bands=bands)
    reference = describe(selected, examples, log_odds)
    write_classifier(SELECTED, checkpoint, selected, model_card(selected), of_model, reference)
    write_json(METRICS / "select.json", figures_of(selected) | {"average_precision": found})
    print(
        f"select: {system}, checkpoint-{step}, threshold {threshold:.4f}, F1 {promised['f1']:.3f} on folds of valid "
        f"that the threshold was not chosen on (at least {promised['f1_low']:.3f})"
    )


def figures_of(selected: TrainedClassifier) -> dict[str, Any]:
    """What metrics/select.json repeats of the record."""
    keys = ("system", "step", "threshold", "temperature", "offset", "valid", "promised", "bands")
    return {key: value for key, value in selected.as_dict().items() if key in keys}


def promised_bands(
    y_true: np.ndarray, units: np.ndarray, log_odds: np.ndarray, selected: TrainedClassifier
) -> dict[str, Any]:
    """Where the bands of select.bands begin, and what they promise; empty without bands.

    Args:
        y_true: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        log_odds: scores of valid before calibration, float of shape (n_rows,).
        selected: the record, with calibration and threshold.
    """
    rule = BandRule.from_section(selected.select)
    if rule is None:
        return {}
    bands = choose_bands(y_true, selected.probability(log_odds), selected.threshold, rule)
    promised = promise_bands(y_true, units, log_odds, (selected.threshold_rule, rule), selected.calibration_method)
    if not bands.review <= selected.threshold <= bands.block:
        print(
            f"select: WARNING: the threshold {selected.threshold:.4f} lies outside of the review band, from "
            f"{bands.review:.4f} to {bands.block:.4f}, so some texts are blocked without being called fraud, or pass "
            "though they are: choose select.threshold min_cost with the same costs, or follow the bands alone"
        )
    print(
        f"select: {promised['reviews_per_1000']:.1f} of 1,000 texts are reviewed (at most "
        f"{promised['reviews_per_1000_high']:.1f}), from a probability of {bands.review:.4f} on; "
        f"{promised['blocked_per_1000']:.1f} are blocked, from {bands.block:.4f} on; {promised['missed']:.1%} of the "
        f"fraud passes (at most {promised['missed_high']:.1%})"
    )
    return {"review": bands.review, "block": bands.block, "promised": promised}


def describe(selected: TrainedClassifier, examples: list[Example], log_odds: np.ndarray) -> Reference:
    """What later texts are compared with: the texts of train and valid, and the selected system's scores of valid.

    Args:
        selected: the record.
        examples: the n_rows rows of valid.
        log_odds: their scores before calibration, float of shape (n_rows,).
    """
    train = (example.input for example in read_examples(PROCESSED / "train.jsonl"))
    flagged = selected.probability(log_odds) >= selected.threshold
    calibrated = selected.calibration.log_odds(log_odds)
    return describe_valid(train, examples, calibrated, flagged, selected.threshold_rule.fraud_fraction)


def warn_of_chance(calibration: Calibration) -> None:
    """Prints a warning if the scores rank valid no better than chance, so that no slope fits them."""
    if calibration.at_bound:
        print(
            "select: WARNING: the scores of valid rank its texts no better than chance, so the calibration has the "
            "least slope allowed and nearly equal probabilities: train longer, or look at metrics/plots/valid.csv"
        )


def score_valid(chosen: Params, checkpoint: Path) -> tuple[list[Example], np.ndarray]:
    """The rows of valid and their log-odds, shape (n_rows,), from the weights that evaluate and predict will use."""
    require_whole_base(BASE_MODEL)
    rendered = read_json(CHECKPOINTS / PROMPT_FILE)
    model, prompt = load_classifier(checkpoint, chosen.method, dataclasses.asdict(chosen.prompt), rendered, BASE_MODEL)
    merge_unquantized(model)
    examples = read_examples(PROCESSED / "valid.jsonl")
    texts = [example.input for example in examples]
    scores = label_scores(model, prompt, texts, chosen.evaluate.max_tokens_per_batch, "valid")
    require_finite(scores.log_odds, [example.source for example in examples])
    return examples, scores.log_odds


if __name__ == "__main__":
    run(main, distributed=True, options=False)
