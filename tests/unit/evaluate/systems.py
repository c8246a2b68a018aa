"""Systems to compare, made of numbers."""

import numpy as np

from stages.evaluate.predictors import scored
from stages.text.example import Example


def make_system(rng, y_true, strength, threshold=0.5):
    return scored(np.round(rng.normal(0, 1, len(y_true)) + strength * (2 * y_true - 1), 1), 1.5, threshold)


def set_of(labels, log_odds):
    examples = [
        Example("字" * (1 + n), bool(label), unit=n // 2, source=f"a:{n}", category="k")
        for n, label in enumerate(labels)
    ]
    system = scored(np.array(log_odds), 1, 0.5)
    return examples, dict.fromkeys(("model", "zero_shot", "baseline"), system)
