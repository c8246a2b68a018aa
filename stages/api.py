"""The classifier from Python: load a trained or an exported one, and score texts with it.

from stages.api import load
load().predict_proba(["您好，您的快递到了。"])
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.special import expit

from stages.bands import Bands
from stages.classifier import sentences
from stages.classifier.reader import Reader
from stages.classifier.scorer import Scorer, Scores, load_scorer
from stages.classifier.sentences import Sentence
from stages.errors import UserError
from stages.model.scoring import require_finite
from stages.paths import SELECTED

__all__ = ["Classifier", "Scores", "Sentence", "TrainedSystem", "load"]

EXPORT_FILE = "export.json"  # in the folder of an export


class Classifier(ABC):
    """Texts to probabilities of fraud. All scores are calibrated.

    classes_: names of the columns of `predict_proba`. threshold: the probability from which on a text is called fraud.
    bands: from which probabilities on a text is reviewed, and blocked; None without select.bands.
    """

    classes_: ClassVar[tuple[str, str]] = ("legitimate", "fraud")
    threshold: float
    bands: Bands | None = None

    @abstractmethod
    def score(self, texts: list[str]) -> Scores:
        """Calibrated log-odds of fraud and what was cut, of n texts, in one pass. The empty text has a score too."""

    def log_odds(self, texts: Iterable[str]) -> np.ndarray:
        """Calibrated log-odds of fraud, float64 of shape (n,)."""
        return self.score(require_texts(texts)).log_odds

    def predict_proba(self, texts: Iterable[str]) -> np.ndarray:
        """Probabilities, float64 of shape (n, 2), as scikit-learn's: legitimate, fraud."""
        log_odds = self.log_odds(texts)
        return np.stack([expit(-log_odds), expit(log_odds)], axis=1)

    def predict(self, texts: Iterable[str]) -> np.ndarray:
        """Which texts are called fraud, bool of shape (n,)."""
        return expit(self.log_odds(texts)) >= self.threshold

    def band(self, texts: Iterable[str]) -> list[str]:
        """The bands of n texts: "block", "review" or "pass". Raises UserError without select.bands."""
        if self.bands is None:
            raise UserError("this classifier has no bands; set select.bands, and run `dvc repro select`")
        return self.bands.names(expit(self.log_odds(texts)))

    def explain(self, text: str) -> list[Sentence]:
        """The sentences of a text, each with what it did to the score."""
        texts = require_texts([text])
        (found,) = sentences.explain(lambda variants: self.score(variants).log_odds, texts, self.reader)
        return found

    @property
    def reader(self) -> Reader | None:
        """Where long texts are cut, so that the rest is not scored sentence by sentence; None scores all of them."""
        return None


class TrainedSystem(Classifier):
    """What `dvc repro` has left in models/selected. scorer: the system that select.system names, loaded.

    Of several threads, one scores at a time.
    """

    def __init__(self, scorer: Scorer):
        self.scorer, self.lock = scorer, threading.RLock()
        self.threshold = scorer.selected.threshold
        self.bands = scorer.selected.edges

    def score(self, texts: list[str]) -> Scores:
        if not texts:
            return Scores(np.zeros(0), np.zeros(0, dtype=bool))
        with self.lock:
            scores = self.scorer.score(texts)
        require_finite(scores.log_odds, [f"text {number}" for number in range(len(texts))])
        return Scores(self.scorer.selected.calibration.log_odds(scores.log_odds), scores.truncated)

    def explain(self, text: str) -> list[Sentence]:
        with self.lock:
            return super().explain(text)

    @property
    def reader(self) -> Reader | None:
        return self.scorer.reader


def load(folder: Path | str = SELECTED, profile: str = "plain") -> Classifier:
    """Loads models/selected, beside which its base model lies, or a folder that `python -m stages.export` wrote.

    Args:
        folder: one of these.
        profile: "plain", or "speed" for compiled layers and CUDA graphs: models/selected on a GPU alone, else a
            UserError. Half a minute to start, and scores move by rounding.
    """
    folder = Path(folder)
    if profile not in ("plain", "speed"):
        raise UserError(f"profile is {profile!r}; expected 'plain' or 'speed'")
    if (folder / EXPORT_FILE).is_file():
        if profile == "speed":
            raise UserError(f"{folder} is an export, which profile speed can't be used with: leave it out")
        from stages.export.load import load_export  # the other way needs none of its packages

        return load_export(folder)
    return TrainedSystem(load_scorer(folder, folder.parent / "base", fast=profile == "speed"))


def require_texts(texts: Iterable[str]) -> list[str]:
    """The texts as a list. Raises UserError for anything else, for example one text."""
    if isinstance(texts, str):
        raise UserError(f"texts is one text, {texts[:40]!r}; expected several: write [text]")
    found = list(texts)
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise UserError(f"text {number} is {text!r}; expected a str: drop it, or convert it")
    return found
