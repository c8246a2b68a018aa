"""The baseline that a language model has to beat: character n-grams and a linear classifier, carefully tuned."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline

from stages.artifacts import write_csv
from stages.metrics import BEST_F1, Calibration, choose_threshold, score_metrics
from stages.text.example import Example

FOLDS = 3
GRID = {"tfidfvectorizer__ngram_range": [(1, 2), (1, 3)], "logisticregression__C": [1, 3, 10, 30]}


def fit_baseline(train: list[Example], seed: int) -> tuple[Pipeline, dict[str, float]]:
    """TF-IDF of character n-grams with logistic regression. It needs no words, so it reads Chinese as it is.

    n-gram length and C are those with the highest average precision over folds of train that keep units whole. With
    too few units for folds they are the middle of the grid. Returns the baseline, fitted on all of train, and the
    choices.
    """
    texts, labels = [example.input for example in train], np.array([example.label for example in train])
    units = np.array([example.unit for example in train])
    pipeline = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, dtype=np.float32),
        LogisticRegression(C=10, solver="liblinear", max_iter=1000),
    )
    if min(len(set(units[labels == label])) for label in (False, True)) < 2 * FOLDS:
        pipeline.fit(texts, labels)
        chosen: dict[str, Any] = {"average_precision_cv": None}
    else:
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        search = GridSearchCV(pipeline, GRID, scoring="average_precision", cv=folds, n_jobs=-1)
        search.fit(texts, labels, groups=units)
        pipeline = search.best_estimator_
        chosen = {"average_precision_cv": float(search.best_score_)}
    ngrams, c = pipeline[0].ngram_range[1], float(pipeline[1].C)
    return pipeline, chosen | {"ngram_max": ngrams, "C": c}


def log_odds(baseline: Pipeline, examples: Sequence[Example]) -> np.ndarray:
    """The log-odds of fraud, float of shape (n_rows,)."""
    return baseline.decision_function([example.input for example in examples])


def baseline_metrics(baseline: Pipeline, examples: Sequence[Example]) -> dict[str, float]:
    """Metrics on some rows, at the threshold that has the highest F1 there."""
    labels = [example.label for example in examples]
    probability = Calibration().probability(log_odds(baseline, examples))
    return score_metrics(labels, probability, choose_threshold(labels, probability, BEST_F1))


def write_log_odds(path: Path, values: np.ndarray) -> None:
    write_csv(path, ({"log_odds": repr(float(value))} for value in values), ["log_odds"])
