"""The selected system's scores of valid, from the files that the stages left."""

from pathlib import Path

import numpy as np

from stages.classifier.systems import PARTS
from stages.classifier.trained import VALID_FILE, TrainedClassifier
from stages.errors import UserError
from stages.log_odds import STORED, read_log_odds
from stages.metrics import decision_metrics
from stages.paths import PROCESSED
from stages.text.example import Example, read_examples


def valid_with_scores(folder: Path, selected: TrainedClassifier) -> tuple[list[Example], np.ndarray]:
    """The n rows of valid and their calibrated log-odds, float of shape (n,).

    Args:
        folder: models/selected.
        selected: its record.

    Raises UserError if valid is not the one that the threshold was chosen on.
    """
    sources = {"model": folder, **STORED}
    examples = read_examples(PROCESSED / "valid.jsonl")
    labels = np.array([example.label for example in examples])
    scores = {part: read_log_odds(sources[part] / VALID_FILE, len(labels)) for part in PARTS[selected.system]}
    log_odds = selected.log_odds(scores)
    decided = decision_metrics(labels, selected.probability(log_odds) >= selected.threshold)
    if any(decided[key] != selected.valid.get(key) for key in ("tn", "fp", "fn", "tp")):
        raise UserError(f"{PROCESSED / 'valid.jsonl'} is not the valid that the threshold was chosen on: dvc repro")
    return examples, selected.calibration.log_odds(log_odds)
