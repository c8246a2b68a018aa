"""The ladder of systems: combinations of those that score texts, and which of the cheap ones is best."""

import numpy as np
from sklearn.metrics import average_precision_score

from stages.classifier.systems import CHEAP, COMBINATIONS, add_up
from stages.evaluate.choices import System, combine_on_valid
from stages.evaluate.predictors import Predictions, combined
from stages.metrics import CalibrationMethod, fit_calibration
from stages.text.example import Example

# From the cheapest to the dearest, as they are printed.
LADDER = ("always_fraud", "zero_shot", "baseline", "probe", "combined_cheap", "model", "combined")


def combined_systems(predictions: dict[str, Predictions]) -> dict[str, System]:
    """The combinations whose parts have scores. Written answers have none, so nothing is combined with them.

    predictions: of any set, by system, for the choices on valid that they hold.
    """
    found = {}
    for name, parts in COMBINATIONS.items():
        systems = tuple(system for part in parts if (system := predictions[part].system))
        if len(systems) == len(parts):
            found[name] = combine_on_valid(systems)
    return found


def with_combinations(predictions: dict[str, Predictions], systems: dict[str, System]) -> dict[str, Predictions]:
    """The predictions of a set by system, and those of the combinations."""
    return predictions | {
        name: combined(system, tuple(predictions[part] for part in COMBINATIONS[name]))
        for name, system in systems.items()
    }


def best_cheap_system(train: list[Example], scores: dict[str, np.ndarray], method: CalibrationMethod) -> str:
    """The cheap system with the highest average precision of its out-of-fold scores over train; of equals the first.

    It is known before test is looked at. Without out-of-fold scores (too few units) it is the baseline.

    Args:
        train: its n_rows rows.
        scores: out-of-fold log-odds of baseline and probe, float of shape (n_rows,).
        method: how the parts of a combination are calibrated, each on its own out-of-fold scores.
    """
    y_true = np.array([example.label for example in train])
    if not all(np.isfinite(values).all() for values in scores.values()):
        return "baseline"
    for name in CHEAP:
        if name in COMBINATIONS:
            parts = {part: fit_calibration(y_true, scores[part], method) for part in COMBINATIONS[name]}
            scores = scores | {name: add_up(scores, parts)}
    return max(CHEAP, key=lambda name: average_precision_score(y_true, scores[name]))
