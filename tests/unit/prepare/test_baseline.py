"""The baseline: its choice by folds that keep units whole, its scores, and its files."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from stages.classifier.baseline import VOCABULARY_FILE, WEIGHTS_FILE, read_baseline, write_baseline
from stages.cross_validation import FOLDS, MOST_ROWS, grouped_folds, search_rows
from stages.errors import UserError
from stages.prepare import baseline as baseline_module
from stages.prepare.baseline import (
    Choice,
    count_ngrams,
    fit_baseline,
    fit_linear,
    log_odds,
    out_of_fold_scores,
    search,
)
from stages.text.example import Example

FAMILIES = {
    "logistic_regression": lambda c: LogisticRegression(C=c, solver="liblinear", max_iter=1000),
    "linear_svm": lambda c: LinearSVC(C=c, random_state=0, max_iter=10_000),
    "complement_nb": lambda alpha: ComplementNB(alpha=alpha),
}


@pytest.fixture
def small_search(monkeypatch):
    monkeypatch.setattr(baseline_module, "NGRAM_RANGES", ((1, 2), (2, 3)))
    grids = {"logistic_regression": (1.0, 30.0), "linear_svm": (0.3, 3.0), "complement_nb": (0.01, 0.1, 1.0)}
    monkeypatch.setattr(baseline_module, "GRIDS", grids)


@pytest.fixture
def rows(sample_texts):
    return [
        Example(f"{'转账' if n % 2 else '天气'}{text}", n % 2 == 1, unit=n // 2) for n, text in enumerate(sample_texts)
    ]


def score_by(model, texts):
    if hasattr(model, "decision_function"):
        return model.decision_function(texts)
    both = model.predict_log_proba(texts)  # of classes without prior: their difference is that of the joint ones
    return both[:, 1] - both[:, 0]


def pipeline(family, strength, ngram_range):
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=ngram_range, sublinear_tf=True, dtype=np.float32)
    return make_pipeline(vectorizer, FAMILIES[family](strength))


def test_the_baseline_is_chosen_over_units_and_beats_a_coin(rows, small_search):
    fitted = fit_baseline(rows[:200], 0)
    assert fitted.chosen["average_precision_cv"] > 0.9
    by_family = fitted.chosen["average_precision_cv_by_family"]
    assert fitted.chosen["average_precision_cv"] == max(by_family.values()) == by_family[fitted.chosen["family"]]
    labels = np.array([row.label for row in rows[200:400]])
    assert average_precision_score(labels, log_odds(fitted.baseline, rows[200:400])) > 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_scores_as_scikit_learns_pipeline(rows, family):
    texts, labels = [row.input for row in rows[:120]], np.array([row.label for row in rows[:120]])
    strength = 0.03 if family == "complement_nb" else 3.0
    expected = pipeline(family, strength, (1, 2)).fit(texts, labels)
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    weight, intercept = fit_linear(Choice(family, strength, (1, 2)), vectorizer.fit_transform(texts), labels)
    others = [row.input for row in rows[120:160]]
    found = vectorizer.transform(others) @ weight + intercept
    assert found == pytest.approx(score_by(expected, others), abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_out_of_fold_scores_are_those_of_pipelines_fitted_on_the_other_folds(rows, family):
    """TF-IDF from counts that are made once: same n-grams, same inverse document frequencies."""
    examples = rows[:120]
    texts, labels = [row.input for row in examples], np.array([row.label for row in examples])
    folds = grouped_folds(labels, np.array([row.unit for row in examples]), 0)
    choice = Choice(family, 0.1, (2, 3))
    (found,) = out_of_fold_scores(count_ngrams(texts, (2, 3))[0], labels, folds, [choice]).values()
    for fitted, scored in folds:
        model = pipeline(family, 0.1, (2, 3)).fit([texts[row] for row in fitted], labels[fitted])
        assert found[scored] == pytest.approx(score_by(model, [texts[row] for row in scored]), abs=1e-4)


def test_scores_are_log_odds_whatever_the_family(rows, small_search, monkeypatch):
    """Out-of-fold probabilities have the labels' mean, and a text's score is no margin of a support vector machine."""
    rng = np.random.default_rng(0)
    noisy = [Example(row.input, bool(row.label ^ (rng.random() < 0.25)), unit=row.unit) for row in rows[:240]]
    for family in FAMILIES:
        grid = {family: baseline_module.GRIDS[family]}
        with monkeypatch.context() as patch:
            patch.setattr(baseline_module, "GRIDS", grid)
            fitted = fit_baseline(noisy, 0)
        assert fitted.chosen["family"] == family
        labels = np.array([row.label for row in noisy])
        probability = 1 / (1 + np.exp(-fitted.out_of_fold))
        assert probability.mean() == pytest.approx(labels.mean(), abs=0.02)
        order = np.argsort(probability)
        for part in np.array_split(order, 3):
            assert probability[part].mean() == pytest.approx(labels[part].mean(), abs=0.12)


def test_several_processes_find_what_one_finds(rows, small_search, monkeypatch):
    texts, labels = [row.input for row in rows[:100]], np.array([row.label for row in rows[:100]])
    units = np.array([row.unit for row in rows[:100]])
    alone = search(texts, labels, units, 0, jobs=1)
    monkeypatch.setattr(baseline_module, "PARALLEL_FROM", 100)
    assert search(texts, labels, units, 0, jobs=2) == alone
    assert len(alone) == 14


def test_with_too_few_units_nothing_is_chosen(rows):
    few = [Example(row.input, row.label, unit=int(row.label)) for row in rows[:40]]
    fitted = fit_baseline(few, 0)
    assert (fitted.chosen["family"], fitted.chosen["C"]) == ("logistic_regression", 10)
    assert fitted.chosen["average_precision_cv"] is None
    assert np.isnan(fitted.out_of_fold).all()
    assert average_precision_score([row.label for row in few], log_odds(fitted.baseline, few)) == 1


def test_a_choice_at_the_edge_of_its_grid_says_so():
    assert Choice("complement_nb", 0.001, (1, 3)).at_edge
    assert Choice("logistic_regression", 1000.0, (1, 3)).at_edge
    assert not Choice("linear_svm", 1.0, (1, 3)).at_edge


def test_a_baseline_is_read_as_it_was_written_and_scores_a_text_whatever_the_others(rows, small_search, tmp_path):
    odd = [Example("\r\n\0 \ud7ff🙂转账", True, unit=1000), Example("𠀀\t天气", False, unit=1001)]
    baseline = fit_baseline(rows[:100] + odd, 0).baseline
    write_baseline(tmp_path, baseline)
    again = read_baseline(tmp_path)
    texts = [row.input for row in [*rows[100:140], *odd]]
    assert (again.log_odds(texts) == baseline.log_odds(texts)).all()
    assert again.log_odds(texts).tolist() == [again.log_odds([text])[0] for text in texts]
    assert again.log_odds([]).shape == (0,)
    first = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write_baseline(tmp_path, again)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == first


def test_files_with_a_pickle_or_that_do_not_fit_are_refused(rows, small_search, tmp_path):
    write_baseline(tmp_path, fit_baseline(rows[:60], 0).baseline)
    weights, vocabulary = (tmp_path / name for name in (WEIGHTS_FILE, VOCABULARY_FILE))
    numbers = load(weights.read_bytes())
    weights.write_bytes(save(numbers | {"weight": numbers["weight"][1:]}))
    with pytest.raises(UserError, match=r"the vocabulary has \d+ n-grams, and there are \d+ weights; expected as many"):
        read_baseline(tmp_path)
    with weights.open("wb") as file:
        np.savez(file, weight=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="holds no baseline: SafetensorError"):
        read_baseline(tmp_path)
    weights.write_bytes(save(numbers))
    vocabulary.write_text(json.dumps({"a": 1}), encoding="utf-8")
    with pytest.raises(UserError):
        read_baseline(tmp_path)
    vocabulary.unlink()
    with pytest.raises(UserError, match="expected weights.safetensors and vocabulary.json as stage prepare"):
        read_baseline(tmp_path)


def test_folds_keep_units_whole_and_hold_each_row_once():
    rng = np.random.default_rng(0)
    units = rng.integers(0, 50, 300)
    labels = rng.random(300) < 0.4
    folds = grouped_folds(labels, units, 0)
    assert len(folds) == FOLDS
    assert sorted(np.concatenate([scored for _, scored in folds])) == list(range(300))
    for fitted, scored in folds:
        assert not set(units[fitted]) & set(units[scored])
        assert labels[scored].mean() == pytest.approx(0.4, abs=0.15)


def test_a_search_sees_whole_units_up_to_the_limit():
    units = np.repeat(np.arange(4000), 2)
    labels = units % 2 == 0
    kept = search_rows(labels, units, 0)
    assert len(kept) == MOST_ROWS
    assert (np.diff(kept) > 0).all()
    assert set(np.unique(units[kept], return_counts=True)[1]) == {2}
    assert (search_rows(labels, units, 0) == kept).all()
    assert (search_rows(labels, units, 1) != kept).any()
    assert len(search_rows(labels[:100], units[:100], 0)) == 100
