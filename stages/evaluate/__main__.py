"""Scores test with the selected model, the base model without adapters, and a TF-IDF baseline.

All scores get their threshold on valid by the same rule, so that the systems differ in nothing else; written answers
(evaluate.mode: generate) have none.

python -m stages.evaluate
"""

from stages import params, run
from stages.evaluate.baseline import baseline_predictions
from stages.evaluate.systems import by_generation, by_score, zero_shot_by_score
from stages.evaluate.tables import write_plots, write_predictions
from stages.metrics import decision_metrics
from stages.model.device import environment, pick_device
from stages.model.selected import load_selected
from stages.paths import METRICS, PLOTS, PREDICTIONS, PROCESSED
from stages.report import write_json
from stages.text.example import read_examples


def main() -> None:
    evaluate = params.load().evaluate
    train, valid, test = (read_examples(PROCESSED / f"{name}.jsonl") for name in ("train", "valid", "test"))
    model, prompt, selected = load_selected()
    rule = selected.threshold_rule
    if evaluate.mode == "score":
        systems = {"model": by_score(model, prompt, test, evaluate, selected.threshold)}
        systems["zero_shot"] = zero_shot_by_score(model, prompt, valid, test, evaluate, rule)
    else:
        systems = {"model": by_generation(model, prompt, test, evaluate)}
        with model.disable_adapter():
            systems["zero_shot"] = by_generation(model, prompt, test, evaluate)
    systems["baseline"] = baseline_predictions(train, valid, test, rule)

    y_true = [example.label for example in test]
    truncated = sum(len(ids) > prompt.room for ids in prompt.tokenize([example.input for example in test]))
    report = {name: system.metrics(y_true) for name, system in systems.items()}
    report["always_fraud"] = decision_metrics(y_true, [True] * len(test))
    report["test"] = {"rows": len(test), "fraud_fraction": sum(y_true) / len(test), "rows_truncated": truncated}
    report["environment"] = environment(pick_device())
    write_predictions(PREDICTIONS / "test.csv", test, systems)
    write_plots(PLOTS, y_true, systems)
    write_json(METRICS / "evaluate.json", report)
    for name, metrics in report.items():
        if "f1" in metrics:
            shown = ", ".join(f"{key} {metrics[key]:.3f}" for key in ("precision", "recall", "f1"))
            print(f"evaluate: {name}: {shown}")


if __name__ == "__main__":
    run(main)
