"""The two-sample classifier: can train and new texts be told apart by their n-grams?

It is a ridge regression on TF-IDF of characters, whose targets are 1 for new texts and 0 for those of train. Each text
gets a score from the folds that it is not in. What counts is the gap between the mean score of new texts and that of
train: a few texts of another kind move it, but hardly the AUC. For fixed folds the scores are a linear function of the
targets, so thousands of draws cost one product of matrices.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer

from stages.drift.draws import first_rows

NGRAMS = (1, 3)
RIDGE = 1.0
FOLDS = 5
LARGEST_PART = 1 / 3  # of train: as many new texts are compared at most, since as many are drawn from train
DRAWS_AT_ONCE = 500
STRONGEST = 12


@dataclass(frozen=True)
class TextGap:
    """What the classifier found.

    Attributes:
        gap: mean score of new texts minus that of train, out of fold.
        auc: how often a new text has a higher score than one of train. Above .5 also by chance, since texts of a unit
            are in several folds.
        ngrams: for new texts and for train, what speaks most for them, with its weight.
    """

    gap: float
    auc: float
    ngrams: dict[str, dict[str, float]]


@dataclass(frozen=True, eq=False)
class TextTest:
    """Compares new texts with train.

    train: n_train texts. units: theirs, int of shape (n_train,). seed: of folds and draws.
    """

    train: list[str]
    units: np.ndarray
    seed: int

    @property
    def most_rows(self) -> int:
        """How many new texts can be compared."""
        return max(1, int(len(self.train) * LARGEST_PART))

    def compare(self, new: list[str]) -> TextGap:
        """Compares at most `most_rows` new texts. As many of train are left out, as in a draw."""
        rng = np.random.default_rng(self.seed)
        stays = np.ones(len(self.train), dtype=bool)
        stays[first_rows(self.units, len(new), rng)] = False
        texts = [text for text, each in zip(self.train, stays, strict=True) if each] + new
        target = (np.arange(len(texts)) >= stays.sum()).astype(float)[:, None]
        features, names = tfidf(texts)
        kernel = centred(features)
        score = Folds.of(kernel, rng).scores(target)
        weights = np.linalg.solve(kernel + RIDGE * np.eye(len(texts)), target - target.mean())[:, 0]
        return TextGap(
            float(gaps(score, target)[0]), float(aucs(score, target)[0]), strongest(features, weights, names)
        )

    def by_chance(self, rows: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
        """Gaps and AUCs of `draws` sets of so many rows of train, in whole units, against the others: (draws,) each."""
        rng = np.random.default_rng(self.seed)
        found = []
        for first in range(0, draws, DRAWS_AT_ONCE):
            target = np.zeros((len(self.train), min(DRAWS_AT_ONCE, draws - first)))
            for column in target.T:
                column[first_rows(self.units, rows, rng)] = 1
            score = self.folds.scores(target)
            found.append((gaps(score, target), aucs(score, target)))
        gap, auc = (np.concatenate(each) for each in zip(*found, strict=True))
        return gap, auc

    @cached_property
    def folds(self) -> "Folds":
        return Folds.of(centred(tfidf(self.train)[0]), np.random.default_rng(self.seed))


@dataclass(frozen=True, eq=False)
class Folds:
    """Ridge regressions that leave out a fold each.

    members: row numbers of each fold. smoothers: by fold the scores of its rows as weights of the other rows' targets,
    (n_fold, n_others).
    """

    members: list[np.ndarray]
    smoothers: list[np.ndarray]

    @classmethod
    def of(cls, kernel: np.ndarray, rng: np.random.Generator) -> "Folds":
        """Deals rows, not units, into folds: nobody knows which new texts belong together. A draw is treated alike.

        Args:
            kernel: inner products, float of shape (n, n).
            rng: deals.
        """
        members = np.array_split(rng.permutation(len(kernel)), FOLDS)
        smoothers = []
        for fold in members:
            others = np.setdiff1d(np.arange(len(kernel)), fold)
            inner = kernel[np.ix_(others, others)] + RIDGE * np.eye(len(others))
            smoothers.append(cho_solve(cho_factor(inner, overwrite_a=True), kernel[np.ix_(others, fold)]).T)
        return cls(members, smoothers)

    def scores(self, target: np.ndarray) -> np.ndarray:
        """Scores out of fold. target and result: float of shape (n, draws)."""
        score, centred_target = np.empty_like(target), target - target.mean(axis=0)
        for fold, smoother in zip(self.members, self.smoothers, strict=True):
            score[fold] = smoother @ np.delete(centred_target, fold, axis=0)
        return score


def tfidf(texts: list[str]) -> tuple[csr_matrix, np.ndarray]:
    """Features of n texts, (n, n_features), and their names. N-grams of a single text can't help to tell others."""
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True, min_df=2, dtype=np.float32)
    try:
        return vectorizer.fit_transform(texts), vectorizer.get_feature_names_out()
    except ValueError:  # no n-gram is in two texts
        return csr_matrix((len(texts), 1), dtype=np.float32), np.array([""])


def centred(features: csr_matrix) -> np.ndarray:
    """Inner products of centred features, float64 (n, n): then no fold's scores follow its share of new texts."""
    kernel = np.asarray((features @ features.T).todense(), dtype=float)
    kernel -= kernel.mean(axis=0)
    return kernel - kernel.mean(axis=1)[:, None]


def gaps(score: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean score of new texts minus that of the others, shape (draws,). score, target: shape (n, draws)."""
    new = target.sum(axis=0)
    return (score * target).sum(axis=0) / new - (score * (1 - target)).sum(axis=0) / (len(target) - new)


def aucs(score: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Areas under the ROC curve, shape (draws,). score, target: shape (n, draws)."""
    new = target.sum(axis=0)
    ranks = (rankdata(score, axis=0) * target).sum(axis=0)
    return (ranks - new * (new + 1) / 2) / (new * (len(target) - new))


def strongest(features: csr_matrix, weights: np.ndarray, names: np.ndarray) -> dict[str, dict[str, float]]:
    """For both sides the n-grams of the largest contribution, without those that are parts of a stronger one.

    Args:
        features: of shape (n, n_features).
        weights: of the texts, float of shape (n,).
        names: of the features, (n_features,).
    """
    force = features.T @ weights
    found: dict[str, dict[str, float]] = {}
    for side, sign in (("new", 1), ("train", -1)):
        chosen: dict[str, float] = {}
        for column in np.argsort(-sign * force, kind="stable")[: 20 * STRONGEST]:
            name = str(names[column])
            if sign * force[column] <= 0 or len(chosen) == STRONGEST:
                break
            if name.strip() and not any(name in other or other in name for other in chosen):
                chosen[name] = float(sign * force[column])
        found[side] = chosen
    return found
