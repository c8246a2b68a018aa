"""The two-sample classifier, beside scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from stages.drift.texts import RIDGE, Folds, TextTest, aucs, centred, gaps, tfidf
from tests.unit.drift.made import OTHERS, batch, make


def test_scores_out_of_fold_are_those_of_ridge_regressions(reference):
    features, _ = tfidf(reference.train)
    dense = np.asarray(features.todense(), dtype=float)
    dense -= dense.mean(axis=0)
    target = np.random.default_rng(0).integers(0, 2, (len(dense), 2)).astype(float)
    folds = Folds.of(centred(features), np.random.default_rng(0))
    found = folds.scores(target)
    assert sorted(np.concatenate(folds.members).tolist()) == list(range(len(dense)))
    for fold in folds.members:
        others = np.setdiff1d(np.arange(len(dense)), fold)
        ridge = Ridge(alpha=RIDGE, fit_intercept=False).fit(dense[others], (target - target.mean(axis=0))[others])
        assert found[fold] == pytest.approx(ridge.predict(dense[fold]), abs=1e-5)


def test_gap_and_auc_are_those_of_the_definitions():
    rng = np.random.default_rng(0)
    target, score = rng.integers(0, 2, (50, 3)).astype(float), rng.integers(0, 9, (50, 3)) / 9
    for column in range(3):
        new = target[:, column] == 1
        assert aucs(score, target)[column] == pytest.approx(roc_auc_score(new, score[:, column]))
        assert gaps(score, target)[column] == pytest.approx(score[new, column].mean() - score[~new, column].mean())


def test_chance_draws_whole_units():
    rows, _ = make(100, 3)
    texts = [row.input for row in rows]
    by_unit = TextTest(texts, np.array([row.unit for row in rows]), 0).by_chance(60, 300)[0]
    by_row = TextTest(texts, np.arange(len(rows)), 0).by_chance(60, 300)[0]
    assert by_unit.mean() > by_row.mean() + 2 * by_row.std()  # texts of a unit give each other away


def test_its_words_are_named(reference):
    test = TextTest(reference.train, reference.train_units, 0)
    found = test.compare(batch(30, 4, words=OTHERS).texts)
    assert found.auc > 0.99
    assert all(any(part in "".join(OTHERS) for part in ngram) for ngram in found.ngrams["new"])
    assert not set("".join(found.ngrams["train"])) & set("".join(OTHERS))


def test_texts_without_common_ngrams_are_compared():
    texts = [chr(0x4E00 + n) for n in range(40)]
    test = TextTest(texts, np.arange(40), 0)
    assert test.compare(["ab", "cd"]).gap == pytest.approx(0)
    assert test.by_chance(2, 3)[0] == pytest.approx(0)
