"""The baseline that a language model has to beat: character n-grams and a linear classifier, carefully chosen.

The family of the classifier, its strength and the lengths of the n-grams are those with the highest average precision
of out-of-fold scores on train.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.naive_bayes import ComplementNB
from sklearn.svm import LinearSVC

from stages.classifier.baseline import Baseline, make_vectorizer
from stages.cross_validation import Folds, grouped_folds, labels_and_units, search_rows
from stages.metrics import BEST_F1, Calibration, choose_threshold, fit_calibration, score_metrics
from stages.text.example import Example

NGRAM_RANGES = ((1, 3), (2, 3), (2, 4))
# The strength of each family: C of the first two, alpha of the third.
GRIDS = {
    "logistic_regression": (1.0, 10.0, 100.0, 1000.0),
    "linear_svm": (0.1, 1.0, 10.0),
    "complement_nb": (0.001, 0.01, 0.1, 1.0),
}
PARALLEL_FROM = 1000  # rows: below, starting processes takes longer than the search


@dataclass(frozen=True)
class Choice:
    """A candidate: family, strength (C or alpha) and the shortest and longest n-gram."""

    family: str
    strength: float
    ngram_range: tuple[int, int]

    @property
    def at_edge(self) -> bool:
        """Whether a wider grid might hold a better strength."""
        return self.strength in (GRIDS[self.family][0], GRIDS[self.family][-1])


class FittedBaseline(NamedTuple):
    """The baseline; what was chosen, for metrics/data.json; out-of-fold log-odds of train, float of shape (n_rows,)."""

    baseline: Baseline
    chosen: dict[str, Any]
    out_of_fold: np.ndarray


DEFAULT = Choice("logistic_regression", 10.0, (1, 3))  # with too few units to choose


def fit_baseline(train: list[Example], seed: int, jobs: int = -1) -> FittedBaseline:
    """Chooses by folds of train that keep units whole, and fits the choice on all of train.

    Args:
        train: its rows.
        seed: of the folds, and of the rows that the search sees.
        jobs: processes of the search; -1 is one for each core.

    The scores of a support vector machine and of a Bayes classifier are no log-odds. So slope and offset that make
    them log-odds (Platt 1999) are fitted on the out-of-fold scores, and are part of the baseline. With too few units
    for folds nothing is chosen, and the out-of-fold log-odds are NaN.
    """
    texts, (labels, units) = [example.input for example in train], labels_and_units(train)
    tried = search(texts, labels, units, seed, jobs)
    choice = max(tried, key=tried.__getitem__, default=DEFAULT)  # the first of equals
    folds = grouped_folds(labels, units, seed)
    out_of_fold = np.full(len(train), np.nan)
    scale, offset = 1.0, 0.0
    if folds:
        counts, _ = count_ngrams(texts, choice.ngram_range)
        (out_of_fold,) = out_of_fold_scores(counts, labels, folds, [choice]).values()
        calibration = fit_calibration(labels, out_of_fold, "platt")
        scale, offset = calibration.slope, calibration.offset
        out_of_fold = calibration.log_odds(out_of_fold)
    vectorizer = make_vectorizer(choice.ngram_range)
    weight, intercept = fit_linear(choice, vectorizer.fit_transform(texts), labels)
    vocabulary = vectorizer.get_feature_names_out().tolist()
    baseline = Baseline(choice.ngram_range, vocabulary, vectorizer.idf_, scale * weight, scale * intercept + offset)
    return FittedBaseline(baseline, describe_choice(choice, tried), out_of_fold)


def search(texts: list[str], labels: np.ndarray, units: np.ndarray, seed: int, jobs: int = -1) -> dict[Choice, float]:
    """Average precision of the out-of-fold scores of each candidate. Empty with too few units for folds.

    Args:
        texts: n_rows texts of train.
        labels: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        seed: of the folds, and of the rows that the search sees.
        jobs: processes; -1 is one for each core.
    """
    rows = search_rows(labels, units, seed)
    folds = grouped_folds(labels[rows], units[rows], seed)
    if not folds:
        return {}
    found: dict[Choice, float] = {}
    shortest, longest = (min(low for low, _ in NGRAM_RANGES), max(high for _, high in NGRAM_RANGES))
    of_all, lengths = count_ngrams([texts[row] for row in rows], (shortest, longest))
    for ngram_range in NGRAM_RANGES:
        counts = of_all[:, (ngram_range[0] <= lengths) & (lengths <= ngram_range[1])]
        choices = [Choice(family, strength, ngram_range) for family, grid in GRIDS.items() for strength in grid]
        for choice, scores in out_of_fold_scores(counts, labels[rows], folds, choices, jobs).items():
            found[choice] = float(average_precision_score(labels[rows], scores))
    return found


def count_ngrams(texts: list[str], ngram_range: tuple[int, int]) -> tuple[csr_matrix, np.ndarray]:
    """How often each n-gram is in each text, float32 of shape (n_rows, n_ngrams), and their lengths, (n_ngrams,)."""
    vectorizer = CountVectorizer(analyzer="char", ngram_range=ngram_range, dtype=np.float32)
    counts = vectorizer.fit_transform(texts)
    return counts, np.array([len(ngram) for ngram in vectorizer.get_feature_names_out()])


def out_of_fold_scores(
    counts: csr_matrix, labels: np.ndarray, folds: Folds, choices: list[Choice], jobs: int = 1
) -> dict[Choice, np.ndarray]:
    """Scores of each row by a classifier that has seen no row of its fold, float of shape (n_rows,).

    Args:
        counts: of n-grams, shape (n_rows, n_ngrams).
        labels: bool of shape (n_rows,).
        folds: of the rows.
        choices: candidates with the n-grams of `counts`.
        jobs: processes; -1 is one for each core.
    """
    parts = Parallel(n_jobs=jobs if len(labels) >= PARALLEL_FROM else 1)(
        delayed(scores_of_fold)(counts, labels, *fold, choices) for fold in folds
    )
    found = {choice: np.zeros(len(labels)) for choice in choices}
    for (_, scored), part in zip(folds, parts, strict=True):
        for choice, scores in zip(choices, part, strict=True):
            found[choice][scored] = scores
    return found


def scores_of_fold(
    counts: csr_matrix, labels: np.ndarray, fitted: np.ndarray, scored: np.ndarray, choices: list[Choice]
) -> list[np.ndarray]:
    """Scores of the fold's rows by each candidate. TF-IDF is fitted once, on the rows that the classifiers see.

    Args:
        counts: of n-grams, shape (n_rows, n_ngrams).
        labels: bool of shape (n_rows,).
        fitted: numbers of the rows to fit on.
        scored: numbers of the rows to score.
        choices: candidates with the n-grams of `counts`.
    """
    known = np.flatnonzero(counts[fitted].getnnz(axis=0))
    tf_idf = TfidfTransformer(sublinear_tf=True)
    inputs, others = tf_idf.fit_transform(counts[fitted][:, known]), tf_idf.transform(counts[scored][:, known])
    found = []
    for choice in choices:
        weight, intercept = fit_linear(choice, inputs, labels[fitted])
        found.append(others @ weight + intercept)
    return found


def fit_linear(choice: Choice, inputs: csr_matrix, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights, float64 of shape (n_ngrams,), and the intercept of a classifier of TF-IDF (n_rows, n_ngrams)."""
    if choice.family == "complement_nb":
        weights = ComplementNB(alpha=choice.strength).fit(inputs, labels).feature_log_prob_
        return (weights[1] - weights[0]).astype(np.float64), 0.0
    if choice.family == "linear_svm":
        model = LinearSVC(C=choice.strength, random_state=0, max_iter=10_000)
    else:
        model = LogisticRegression(C=choice.strength, solver="liblinear", max_iter=1000)
    model.fit(inputs, labels)
    return model.coef_[0].astype(np.float64), float(np.ravel(model.intercept_)[0])


def describe_choice(choice: Choice, tried: dict[Choice, float]) -> dict[str, Any]:
    """What was chosen, its average precision in cross-validation, and that of the best of each family.

    C is that of the two families which have one, alpha that of the third; the other is None.
    """
    strength = "alpha" if choice.family == "complement_nb" else "C"
    best = {family: max((tried[c] for c in tried if c.family == family), default=None) for family in GRIDS}
    return {
        "family": choice.family,
        "ngram_min": choice.ngram_range[0],
        "ngram_max": choice.ngram_range[1],
        "C": None,
        "alpha": None,
        strength: choice.strength,
        "average_precision_cv": tried.get(choice),
        "average_precision_cv_by_family": best,
        "at_edge_of_grid": choice.at_edge,
    }


def log_odds(baseline: Baseline, examples: Sequence[Example]) -> np.ndarray:
    """The log-odds of fraud, float of shape (n_rows,)."""
    return baseline.log_odds([example.input for example in examples])


def baseline_metrics(baseline: Baseline, examples: Sequence[Example]) -> dict[str, float]:
    """Metrics on some rows, at the threshold that has the highest F1 there."""
    labels = [example.label for example in examples]
    probability = Calibration().probability(log_odds(baseline, examples))
    return score_metrics(labels, probability, choose_threshold(labels, probability, BEST_F1))
