"""Made-up texts in units of two, whose words and scores resemble each other, and a reference of them."""

import numpy as np

from stages.classifier.trained import TrainedClassifier
from stages.drift.compare import Batch
from stages.drift.reference import Reference, reference_of
from stages.text.example import Example

WORDS = [f"{chr(0x4E00 + 7 * n)}{chr(0x6E00 + 5 * n)}" for n in range(60)]
OTHERS = [f"{chr(0x7A00 + 7 * n)}{chr(0x8600 + 5 * n)}" for n in range(60)]
PROMISED = {"precision": 0.8, "recall": 0.75, "average_precision": 0.8, "fraud_fraction": 0.5}


def make(units, seed, words=WORDS, share=0.5):
    """Rows and calibrated log-odds. A unit has eight words of its own, of which each of its two texts has some.

    Args:
        units: how many.
        seed: of all that is drawn.
        words: the vocabulary.
        share: of fraud.
    """
    rng = np.random.default_rng(seed)
    rows, scores = [], []
    for unit in range(units):
        own, label, level = rng.choice(words, 8), bool(rng.random() < share), rng.normal(0, 1.2)
        for _ in range(2):
            text = "".join(rng.choice(own, rng.integers(5, 12))) + "".join(rng.choice(words, 4))
            rows.append(Example(text, label, unit=unit))
            scores.append((2.0 if label else -2.0) + level + rng.normal(0, 0.5))
    return rows, np.array(scores) * 4 / (1.2**2 + 0.5**2)  # the log-odds of two normal distributions


def record(fraud_fraction=None, promised=None):
    """The record of a classifier with threshold 0.5."""
    cost = {"fp": 1.0, "fn": 1.0}
    return TrainedClassifier(
        step=1,
        threshold=0.5,
        temperature=1.0,
        speakers_removed=False,
        valid={},
        promised=promised or PROMISED,
        select={
            "threshold": "fixed",
            "calibration": "platt",
            "min_precision": 0.9,
            "cost": cost,
            "fraud_fraction": fraud_fraction,
        },
        method_name="lora",
        method={},
        prompt={},
        base={},
        dataset_name="made",
    )


def make_reference(fraud_fraction=None, share=0.5) -> Reference:
    train, _ = make(150, 1, share=share)
    valid, scores = make(80, 2, share=share)
    return reference_of(train, valid, scores, record(fraud_fraction))


def batch(units, seed, name="new", words=WORDS, share=0.5) -> Batch:
    rows, scores = make(units, seed, words, share)
    return Batch(name, [row.input for row in rows], scores)


def mixed(one: Batch, other: Batch, rows: int) -> Batch:
    """The first batch with its last rows replaced by the first ones of the other."""
    kept = len(one.texts) - rows
    texts = one.texts[:kept] + other.texts[:rows]
    return Batch("mixed", texts, np.concatenate([one.log_odds[:kept], other.log_odds[:rows]]))
