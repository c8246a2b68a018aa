"""The fitted baseline: TF-IDF of character n-grams and a weight for each. Its files hold no pickle."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load
from sklearn.feature_extraction.text import TfidfVectorizer

from stages.artifacts import replacing, write_numbers
from stages.errors import UserError

WEIGHTS_FILE = "weights.safetensors"
VOCABULARY_FILE = "vocabulary.json"
FILES = (WEIGHTS_FILE, VOCABULARY_FILE)


def make_vectorizer(ngram_range: tuple[int, int], vocabulary: Sequence[str] | None = None) -> TfidfVectorizer:
    """Characters, not words, so Chinese is read as it is."""
    numbered = None if vocabulary is None else {ngram: column for column, ngram in enumerate(vocabulary)}
    return TfidfVectorizer(
        analyzer="char", ngram_range=ngram_range, sublinear_tf=True, dtype=np.float32, vocabulary=numbered
    )


@dataclass(frozen=True)
class Baseline:
    """A linear classifier of TF-IDF. All families of the search have this form.

    ngram_range: shortest and longest n-gram. vocabulary: the n-gram of each of n columns. idf: float32 of shape (n,).
    weight: float64 of shape (n,). intercept: added to each score.
    """

    ngram_range: tuple[int, int]
    vocabulary: list[str]
    idf: np.ndarray
    weight: np.ndarray
    intercept: float

    @cached_property
    def vectorizer(self) -> TfidfVectorizer:
        vectorizer = make_vectorizer(self.ngram_range, self.vocabulary)
        vectorizer.idf_ = self.idf
        return vectorizer

    def log_odds(self, texts: Sequence[str]) -> np.ndarray:
        """The log-odds of fraud, float64 of shape (n_texts,). A text's does not depend on the others."""
        if not texts:
            return np.zeros(0)
        return self.vectorizer.transform(texts) @ self.weight + self.intercept


def write_baseline(folder: Path, baseline: Baseline) -> None:
    """Writes FILES into a folder."""
    numbers = {
        "ngram_range": np.array(baseline.ngram_range),
        "idf": baseline.idf,
        "weight": baseline.weight,
        "intercept": np.array([baseline.intercept]),
    }
    write_numbers(folder / WEIGHTS_FILE, numbers)
    with replacing(folder / VOCABULARY_FILE) as file:
        json.dump(baseline.vocabulary, file)


def read_baseline(folder: Path) -> Baseline:
    """Reads the files of `write_baseline`. Raises UserError if one is missing or damaged, or they don't fit."""
    try:
        numbers = load((folder / WEIGHTS_FILE).read_bytes())
        vocabulary = json.loads((folder / VOCABULARY_FILE).read_text(encoding="utf-8"))
        low, high = numbers["ngram_range"].tolist()
        baseline = Baseline(
            (low, high), vocabulary, numbers["idf"], numbers["weight"], float(numbers["intercept"].item())
        )
        sizes = {len(baseline.vocabulary), *baseline.idf.shape, *baseline.weight.shape}
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{folder} holds no baseline: {type(error).__name__}: {error}; expected {' and '.join(FILES)} as stage "
            "prepare writes them: run `dvc repro`"
        ) from error
    if len(sizes) != 1:
        raise UserError(
            f"{folder}: the vocabulary has {len(vocabulary)} n-grams, and there are {len(baseline.weight)} weights; "
            "expected as many: run `dvc repro`"
        )
    return baseline
