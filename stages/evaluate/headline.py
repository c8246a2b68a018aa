"""The few figures of a run that `dvc metrics diff` and `dvc exp show` list."""

from collections.abc import Mapping
from typing import Any

MODEL = ("precision", "recall", "f1", "average_precision")
DIFFERENCE = ("average_precision", "average_precision_low", "average_precision_high")


def headline(comparison: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    """The model's figures on test, the best cheap system's, and the difference. Keys are short, as columns of a table.

    A figure that the set does not define is left out: without both classes, or of written answers.

    Args:
        comparison: of the systems on test, as in metrics/evaluate.json.
        threshold: of the model.
    """
    model, name = comparison["model"], comparison.get("best_cheap", {}).get("name")
    figures = {key: model[key] for key in MODEL if key in model} | {"threshold": threshold}
    if name is None:
        return figures
    ahead = comparison["ahead"].get("model", {})
    figures["best_cheap"] = name
    figures |= {f"best_cheap_{key}": comparison[name][key] for key in DIFFERENCE[:1] if key in comparison[name]}
    return figures | {key.replace("average_precision", "ahead"): ahead[key] for key in DIFFERENCE if key in ahead}
