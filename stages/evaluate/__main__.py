"""Scores test and the further sets with each system: the model, the base model, cheap systems and combinations.

Calibration and threshold of each system are chosen on valid by the same rules, so that the systems differ in nothing
else. Written answers (evaluate.mode: generate) have neither.

python -m stages.evaluate
"""

from typing import Any, assert_never

import numpy as np
from peft import PeftModel

from stages import params
from stages.artifacts import read_json, write_csv, write_json
from stages.classifier.shift import Shift, read_reference
from stages.classifier.trained import VALID_FILE, TrainedClassifier, load_selected
from stages.command import run
from stages.evaluate.choices import System, Valid, choose_on_valid
from stages.evaluate.compare import compare_systems, slices, worst_errors
from stages.evaluate.headline import headline
from stages.evaluate.messages import print_comparison, print_promise, warn_of_shift, warn_of_unused_categories
from stages.evaluate.predictors import (
    Predictions,
    Predictor,
    generation_predictor,
    scoring_predictor,
    stored_predictor,
)
from stages.evaluate.systems import best_cheap_system, combined_systems, with_combinations
from stages.evaluate.tables import ERROR_COLUMNS, SLICE_COLUMNS, write_plots, write_predictions
from stages.log_odds import STORED, read_log_odds
from stages.model.device import environment, pick_device
from stages.model.lora import merge_unquantized
from stages.params import Evaluate
from stages.paths import (
    FURTHER,
    METRICS,
    PLOTS,
    PREDICTIONS,
    PROBE,
    PROCESSED,
    PROMPT_FILE,
    SELECTED,
    ZERO_SHOT,
)
from stages.text.example import Example, read_examples
from stages.text.prompt import Prompt, report_truncated

Sets = dict[str, list[Example]]


def main() -> None:
    evaluate = params.load().evaluate
    sets = {"test": read_examples(PROCESSED / "test.jsonl")}
    sets |= {name: read_examples(FURTHER / f"{name}.jsonl") for name in sorted(evaluate.further)}
    valid = read_examples(PROCESSED / "valid.jsonl")
    model, prompt, selected = load_selected()
    if read_json(PROBE / PROMPT_FILE) != prompt.rendered:
        print(
            f"evaluate: WARNING: {PROBE}, with the scores of zero-shot and probe, is of another prompt than the model. "
            "A chat template that writes the time gives each stage its own; otherwise run `dvc repro`"
        )
    predictors = build_predictors(evaluate, model, prompt, selected, valid)
    zero_shot = {name: predictors["zero_shot"](name, examples) for name, examples in sets.items()}
    merge_unquantized(model)  # from here on there is no base model without the adapter
    predictions = {name: predict_set(name, sets[name], predictors, zero_shot[name]) for name in sets}
    combinations = combined_systems(predictions["test"])
    predictions = {name: with_combinations(of_set, combinations) for name, of_set in predictions.items()}
    for name, of_set in predictions.items():
        report_truncated("evaluate", name, of_set["model"].truncated or 0, len(sets[name]), prompt.truncation_side)

    train = read_examples(PROCESSED / "train.jsonl")
    scores = read_stored("train", len(train))
    best_cheap = best_cheap_system(train, scores, selected.calibration_method)
    comparisons = {name: compare_systems(sets[name], predictions[name], evaluate, best_cheap) for name in sets}
    kept = {name: metrics for name in sets if (metrics := keep_promise(selected, sets[name], predictions[name]))}
    write_tables(sets, predictions, evaluate.errors_listed)
    further = {name: comparison for name, comparison in comparisons.items() if name != "test"}
    shifts = compare_with_valid(selected, {name: sets[name] for name in further}, predictions)
    for name, shift in shifts.items():
        further[name]["shift"] = shift.report()
    promises = {
        "promised": with_bands(selected.promised, selected.bands.get("promised")),
        "kept": kept,
        "environment": environment(pick_device()),
    }
    write_json(METRICS / "evaluate.json", {**comparisons["test"], "further": further, **promises})
    threshold = float(predictions["test"]["model"].threshold)
    write_json(METRICS / "headline.json", headline(comparisons["test"], threshold))
    warn_of_unused_categories(evaluate.without_categories, sets.values())
    for name, comparison in comparisons.items():
        print_comparison(name, comparison, evaluate.equivalence_margin)
    for name, shift in shifts.items():
        warn_of_shift(name, shift)
    for name, metrics in kept.items():
        print_promise(name, comparisons[name][selected.system], metrics, promises["promised"])


def build_predictors(
    evaluate: Evaluate, model: PeftModel, prompt: Prompt, selected: TrainedClassifier, examples: list[Example]
) -> dict[str, Predictor]:
    """The systems to compare that score texts by themselves: model, zero_shot, baseline, probe.

    Args:
        evaluate: the section `evaluate` of params.yaml.
        model: the selected model, base and adapter.
        prompt: as in training.
        selected: its record.
        examples: rows of valid, on which calibration and threshold of the other systems are chosen.
    """
    valid = Valid.of(examples, selected.threshold_rule, selected.calibration_method, evaluate.bootstrap_samples)
    if evaluate.mode == "generate":
        predictors = {
            "model": generation_predictor(model, prompt, evaluate, adapter=True),
            "zero_shot": generation_predictor(model, prompt, evaluate, adapter=False),
        }
    elif evaluate.mode == "score":
        predictors = {
            "model": scoring_predictor(model, prompt, evaluate, selected_system(selected, valid)),
            "zero_shot": stored_predictor(ZERO_SHOT, valid),
        }
    else:
        assert_never(evaluate.mode)
    return predictors | {name: stored_predictor(folder, valid) for name, folder in STORED.items()}


def selected_system(selected: TrainedClassifier, valid: Valid) -> System:
    """The model's scores of valid, as select wrote them, and what it chose on them."""
    log_odds = read_log_odds(SELECTED / VALID_FILE, len(valid.y_true))
    if selected.system != "model":
        return choose_on_valid(valid, log_odds)
    return System(valid, log_odds, selected.calibration, selected.threshold)


def read_stored(name: str, rows: int) -> dict[str, np.ndarray]:
    """The log-odds of a set by the systems that other stages scored, each float of shape (n_rows,)."""
    return {system: read_log_odds(folder / f"{name}.csv", rows) for system, folder in STORED.items()}


def predict_set(
    name: str, examples: list[Example], predictors: dict[str, Predictor], zero_shot: Predictions
) -> dict[str, Predictions]:
    """The predictions of each system on a set.

    Args:
        name: of the set.
        examples: its rows.
        predictors: by system.
        zero_shot: predictions of the base model; written answers have to be made before the adapter is merged into it.
    """
    return {
        system: zero_shot if system == "zero_shot" else predict(name, examples)
        for system, predict in predictors.items()
    }


def keep_promise(
    selected: TrainedClassifier, examples: list[Example], predictions: dict[str, Predictions]
) -> dict[str, Any]:
    """The selected system's metrics on a set at the promised share of fraud, and those of its bands if it has some.

    Empty without scores. With a single class there are those of the bands alone.
    """
    labels, output = [example.label for example in examples], predictions.get(selected.system)
    if output is None or output.log_odds is None:
        return {}
    metrics = selected.at_promised_fraction(labels, output.log_odds) if len(set(labels)) > 1 else {}
    return with_bands(metrics, selected.bands_at_promised_fraction(labels, output.log_odds))


def with_bands(metrics: dict[str, float], bands: dict[str, float] | None) -> dict[str, Any]:
    """Metrics with those of the bands under a key of their own, if there are any."""
    return {**metrics, "bands": bands} if bands else dict(metrics)


def compare_with_valid(
    selected: TrainedClassifier, sets: Sets, predictions: dict[str, dict[str, Predictions]]
) -> dict[str, Shift]:
    """In what each set differs from valid, by its texts and by the selected system's scores, without its labels.

    Empty for models of versions before 0.4. Written answers have no scores to compare.

    Args:
        selected: the record.
        sets: rows by set.
        predictions: by set, and then by system.
    """
    reference = read_reference(SELECTED)
    if reference is None:
        return {}
    found = {}
    for name, examples in sets.items():
        output = predictions[name].get(selected.system)
        scores = None if output is None or output.log_odds is None else selected.calibration.log_odds(output.log_odds)
        comparisons = reference.compare(reference.count([example.input for example in examples], scores))
        found[name] = Shift(reference, comparisons, None if output is None else float(output.y_pred.mean()))
    return found


def write_tables(sets: Sets, predictions: dict[str, dict[str, Predictions]], errors_listed: int) -> None:
    """Writes predictions, worst errors and slices of all sets, and the tables behind the plots of test."""
    sliced: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for name, examples in sets.items():
        sliced += slices(name, examples, predictions[name])
        errors += worst_errors(name, examples, predictions[name], errors_listed)
        write_predictions(PREDICTIONS / f"{name}.csv", examples, predictions[name])
    write_csv(PREDICTIONS / "errors.csv", errors, ERROR_COLUMNS)
    write_csv(PLOTS / "slices.csv", sliced, SLICE_COLUMNS)
    write_plots(PLOTS, sets["test"], predictions["test"])


if __name__ == "__main__":
    run(main, distributed=True, options=False)
