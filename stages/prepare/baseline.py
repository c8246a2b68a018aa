"""What a language model has to beat: character n-grams and a linear classifier, tuned as carefully."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline

from stages.artifacts import write_csv
from stages.text.example import Example

FOLDS = 3
GRID = {"tfidfvectorizer__ngram_range": [(1, 2), (1, 3)], "logisticregression__C": [1, 3, 10, 30]}


def fit_baseline(train: list[Example], seed: int) -> tuple[Pipeline, dict[str, float]]:
    """TF-IDF of character n-grams with logistic regression; needs no words, so it reads Chinese as it stands.

    n-gram length and C have the highest average precision over folds of train that keep units whole. Returns the
    baseline, fitted on all of train, and what was chosen. Too few units for folds: the middle of the grid.
    """
    texts, labels = [example.input for example in train], np.array([example.label for example in train])
    units = np.array([example.unit for example in train])
    pipeline = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, dtype=np.float32),
        LogisticRegression(C=10, solver="liblinear", max_iter=1000),
    )
    if min(len(set(units[labels == label])) for label in (False, True)) < 2 * FOLDS:
        pipeline.fit(texts, labels)
        chosen = {"average_precision_cv": None}
    else:
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        search = GridSearchCV(pipeline, GRID, scoring="average_precision", cv=folds, n_jobs=-1)
        search.fit(texts, labels, groups=units)
        pipeline = search.best_estimator_
        chosen = {"average_precision_cv": float(search.best_score_)}
    ngrams, c = pipeline[0].ngram_range[1], float(pipeline[1].C)
    return pipeline, chosen | {"ngram_max": ngrams, "C": c}


def log_odds(baseline: Pipeline, examples: Sequence[Example]) -> np.ndarray:
    """Of fraud, float of shape (n_rows,)."""
    return baseline.decision_function([example.input for example in examples])


def write_log_odds(path: Path, values: np.ndarray) -> None:
    write_csv(path, ({"log_odds": repr(float(value))} for value in values), ["log_odds"])
