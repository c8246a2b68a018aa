"""Systems to compare, made of numbers."""

import numpy as np

from stages.evaluate.predictors import Predictions
from stages.metrics import Calibration
from stages.text.example import Example


def fixed(log_odds, threshold=0.5, slope=1.0):
    """Predictions whose calibration and threshold were not chosen on any rows."""
    return Predictions(Calibration(slope).probability(log_odds), threshold, np.asarray(log_odds))


def make_system(rng, y_true, strength, threshold=0.5):
    return fixed(np.round(rng.normal(0, 1, len(y_true)) + strength * (2 * y_true - 1), 1), threshold, 1 / 1.5)


def set_of(labels, log_odds):
    examples = [
        Example("字" * (1 + n), bool(label), unit=n // 2, source=f"a:{n}", category="k")
        for n, label in enumerate(labels)
    ]
    system = fixed(np.array(log_odds))
    return examples, dict.fromkeys(("model", "zero_shot", "baseline"), system)
