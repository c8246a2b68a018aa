"""Scores test and the further sets with the selected model, the base model without adapters, and the TF-IDF baseline.

All scores get temperature and threshold on valid by the same rules, so that the systems differ in nothing else; written
answers (evaluate.mode: generate) have none.

python -m stages.evaluate
"""

from typing import assert_never

from stages import params
from stages.artifacts import write_csv, write_json
from stages.classifier.trained import load_selected
from stages.command import run
from stages.evaluate.compare import report, slices, worst_errors
from stages.evaluate.predictors import (
    Predictor,
    baseline_predictor,
    generation_predictor,
    scoring_predictor,
    zero_shot_predictor,
)
from stages.evaluate.tables import ERROR_COLUMNS, SLICE_COLUMNS, write_plots, write_predictions
from stages.model.device import environment, pick_device
from stages.model.lora import merge_unquantized
from stages.params import Evaluate
from stages.paths import BASELINE, FURTHER, METRICS, PLOTS, PREDICTIONS, PROCESSED
from stages.text.example import Example, read_examples
from stages.text.prompt import report_truncated


def main() -> None:
    evaluate = params.load().evaluate
    sets = {"test": read_examples(PROCESSED / "test.jsonl")}
    sets |= {name: read_examples(FURTHER / f"{name}.jsonl") for name in sorted(evaluate.further_sets)}
    valid = read_examples(PROCESSED / "valid.jsonl")
    model, prompt, selected = load_selected()
    predictors = build_predictors(evaluate, model, prompt, selected, valid)
    zero_shot = {name: predictors["zero_shot"](name, examples) for name, examples in sets.items()}
    merge_unquantized(model)  # from here on there is no base model without the adapter

    reports, kept, sliced, errors = {}, {}, [], []
    for name, examples in sets.items():
        systems = {
            system: zero_shot[name] if system == "zero_shot" else predict(name, examples)
            for system, predict in predictors.items()
        }
        reports[name] = report(examples, systems, evaluate)
        truncated = systems["model"].truncated
        reports[name]["size"]["rows_truncated"] = truncated
        report_truncated("evaluate", name, truncated, len(examples), prompt.truncation_side)
        labels = [row.label for row in examples]
        if not systems["model"].written and len(set(labels)) == 2:
            kept[name] = selected.at_promised_fraction(labels, systems["model"].log_odds)
        sliced += slices(name, examples, systems)
        errors += worst_errors(name, examples, systems, evaluate.errors_listed)
        write_predictions(PREDICTIONS / f"{name}.csv", examples, systems)
        if name == "test":
            write_plots(PLOTS, examples, systems)
    write_csv(PREDICTIONS / "errors.csv", errors, ERROR_COLUMNS)
    write_csv(PLOTS / "slices.csv", sliced, SLICE_COLUMNS)
    test = reports.pop("test")
    promises = {"promised": selected.promised, "kept": kept}
    write_json(
        METRICS / "evaluate.json", {**test, "further": reports, **promises, "environment": environment(pick_device())}
    )
    for category in set(evaluate.without_categories) - {row.category for rows in sets.values() for row in rows}:
        print(f"evaluate: WARNING: no text is of the category {category!r} in evaluate.without_categories")
    for name, part in {"test": test, **reports}.items():
        tell(name, part)
    for name, metrics in kept.items():
        alarms = {"test": test, **reports}[name]["model"]
        precision = f"{metrics['precision']:.3f}" if alarms["tp"] + alarms["fp"] else "undefined (no alarm)"
        shares = f"precision {precision}, promised on valid {selected.promised['precision']:.3f}"
        print(f"evaluate: {name}: {shares}, each with {metrics['fraud_fraction']:.0%} fraud")


def build_predictors(evaluate: Evaluate, model, prompt, selected, valid: list[Example]) -> dict[str, Predictor]:
    """The systems to compare.

    Args:
        evaluate: the section of that name.
        model, prompt, selected: as load_selected gives them.
        valid: rows on which the other systems' temperature and threshold are chosen.
    """
    rule = selected.threshold_rule
    if evaluate.mode == "generate":
        predictors = {
            name: generation_predictor(model, prompt, evaluate, name == "model") for name in ("model", "zero_shot")
        }
    elif evaluate.mode != "score":
        assert_never(evaluate.mode)
    else:
        predictors = {
            "model": scoring_predictor(model, prompt, evaluate, selected.temperature, selected.threshold),
            "zero_shot": zero_shot_predictor(model, prompt, evaluate, valid, rule),
        }
    return predictors | {"baseline": baseline_predictor(BASELINE, valid, rule)}


def tell(name: str, part: dict) -> None:
    for system in ("model", "zero_shot", "baseline", "always_fraud"):
        print(f"evaluate: {name}: {system}: {decisions_told(part[system])}")
        if unparsable := part[system].get("unparsable"):
            print(
                f"evaluate: WARNING: {name}: {system}: {unparsable} of {part['size']['rows']} answers could not be "
                "read, and count as no alarm"
            )
    difference = part.get("difference", {})
    if "average_precision_low" in difference:
        value, low, high = (difference[f"average_precision{end}"] for end in ("", "_low", "_high"))
        verdict = "no difference" if low <= 0 <= high else "the model wins" if value > 0 else "the baseline wins"
        shown = f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"evaluate: {name}: average precision, model minus baseline: {shown}: {verdict}")


def decisions_told(decided: dict) -> str:
    """What a set defines of precision, recall, F1 and false alarms, and what it doesn't."""
    if not decided["fp"] + decided["tn"]:
        return f"no harmless texts, so precision and F1 say nothing; recall {with_bounds(decided, 'recall', 3)}"
    alarms = f"{with_bounds(decided, 'false_alarms_per_1000', 1)} false alarms per 1,000 harmless texts"
    if not decided["tp"] + decided["fn"]:
        return f"no fraud, so precision, recall and F1 are undefined; {alarms}"
    if not decided["tp"] + decided["fp"]:
        return f"no alarm, so precision is undefined; recall 0.000, f1 0.000, {alarms}"
    shown = ", ".join(f"{key} {decided[key]:.3f}" for key in ("precision", "recall", "f1"))
    return f"{shown}, {alarms}"


def with_bounds(decided: dict, key: str, digits: int) -> str:
    """A metric with its interval, if it has one."""
    low, high = decided.get(f"{key}_low"), decided.get(f"{key}_high")
    return f"{decided[key]:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


if __name__ == "__main__":
    run(main, distributed=True, options=False)
