"""Loads an exported folder as a classifier of stages.api."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stages.api import Classifier
from stages.bands import Bands
from stages.classifier.scorer import Scores
from stages.errors import UserError
from stages.export import score as score_program
from stages.export.record import read_record
from stages.model.scoring import require_finite
from stages.paths import BASE_MODEL


class ExportedClassifier(Classifier):
    """An export with the calibration that its record holds. score_texts: rows of score.py for n texts."""

    def __init__(self, record: dict[str, Any], score_texts: Callable[[list[str]], list[dict[str, Any]]]):
        self.record = record
        self.score_texts = score_texts
        self.threshold = record["probability_threshold"]
        self.bands = Bands(**record["probability_bands"]) if "probability_bands" in record else None

    def score(self, texts: list[str]) -> Scores:
        rows = self.score_texts(list(texts))
        log_odds = np.array([row["log_odds"] for row in rows], dtype=float)
        require_finite(log_odds, [f"text {number}" for number in range(len(rows))])
        return Scores(log_odds, np.array([row["truncated"] for row in rows], dtype=bool))


def load_export(folder: Path, base_folder: Path = BASE_MODEL) -> ExportedClassifier:
    """Loads a folder that `python -m stages.export` wrote. base_folder: the base model, which an adapter needs.

    Raises UserError if the folder is none, or if a package for its kind is missing.
    """
    record = read_record(folder)
    try:
        return ExportedClassifier(record, score_program.load(folder, str(base_folder)))
    except ImportError as error:
        raise UserError(
            f"{folder} is an export of kind {record['kind']}, which needs {error.name}: "
            "pip install -r requirements-export.txt"
        ) from error
