"""The classifier from Python, with each system."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from stages import api
from stages.api import Classifier, Scores, load
from stages.classifier.scorer import load_scorer
from stages.classifier.systems import PARTS
from stages.errors import UserError
from stages.select.__main__ import main as select
from tests.unit.classifier.test_scorer import select_system

TEXTS = ["您好，您的快递到了。", "请把钱转到安全账户。不要告诉别人！", "Your parcel is waiting.", "短"]


@pytest.fixture(scope="module")
def selected(project, tmp_path_factory) -> Path:
    folder = Path(shutil.copytree(project, tmp_path_factory.mktemp("api") / "project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        select()
    return folder


def test_an_unknown_profile_is_refused(selected):
    with pytest.raises(UserError, match="profile is 'fast'; expected 'plain' or 'speed'"):
        load(selected / "models/selected", profile="fast")


@pytest.mark.parametrize("system", PARTS)
def test_each_system_has_the_probabilities_of_predict(selected, monkeypatch, system):
    monkeypatch.chdir(selected)
    select_system(selected, system)
    scorer = load_scorer()
    monkeypatch.chdir("/")  # the folder alone says where the base model is
    classifier = load(selected / "models/selected")
    probability = scorer.selected.probability(scorer.score(TEXTS).log_odds)
    found = classifier.predict_proba(TEXTS)
    assert found.shape == (4, 2)
    assert found.dtype == np.float64
    assert found[:, 1].tolist() == probability.tolist()
    assert found.sum(axis=1) == pytest.approx(1)
    assert classifier.predict(TEXTS).tolist() == (probability >= scorer.selected.threshold).tolist()
    assert expit(classifier.log_odds(TEXTS)).tolist() == probability.tolist()
    sentences = classifier.explain(TEXTS[1])
    assert [each.text for each in sentences] == ["请把钱转到安全账户。", "不要告诉别人！"]
    assert all(each.effect for each in sentences)
    assert classifier.explain("")[0].effect == 0


def test_several_threads_get_the_scores_of_one(selected, monkeypatch):
    monkeypatch.chdir(selected)
    select_system(selected, "model")
    classifier = load()
    batches = [[text, "转账" * number] for number, text in enumerate(TEXTS * 5, 1)]
    alone = [classifier.log_odds(batch).tolist() for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        assert [found.tolist() for found in threads.map(classifier.log_odds, batches)] == alone


def test_an_effect_of_the_baseline_is_exact(selected, monkeypatch):
    monkeypatch.chdir(selected)
    select_system(selected, "baseline")
    classifier = load()
    whole, without = classifier.log_odds([TEXTS[1], "不要告诉别人！"])
    assert classifier.explain(TEXTS[1])[0].effect == whole - without


@pytest.mark.parametrize("system", PARTS)
def test_what_a_model_does_not_read_of_a_long_text_is_not_scored_by_sentences(selected, monkeypatch, system):
    monkeypatch.chdir(selected)
    select_system(selected, system)
    classifier = load()
    text = "甲：请把钱转到安全账户。\n乙：不要告诉别人！" * 1000
    (expected,) = classifier.log_odds([text])
    scored: list[str] = []
    score = classifier.score
    monkeypatch.setattr(classifier, "score", lambda texts: scored.extend(texts) or score(texts))
    found = classifier.explain(text)
    assert "".join(each.text for each in found) == text
    if system in ("model", "probe"):
        assert max(map(len, scored)) < len(text) / 20
        assert (found[-1].effect, len(found[-1].text) > 0.95 * len(text)) == (0, True)
        rest = classifier.log_odds([text[: found[1].start] + text[found[1].end :]])[0]
        assert found[1].effect == pytest.approx(expected - rest, abs=1e-4)
    else:  # the baseline reads all
        assert max(map(len, scored)) == len(text)
        assert all(len(each.text) < len(text) / 20 for each in found)


class Fixed(Classifier):
    """Gives every text the same log-odds."""

    threshold = 0.5

    def __init__(self, log_odds: float):
        self.value = log_odds

    def score(self, texts: list[str]) -> Scores:
        return Scores(np.full(len(texts), self.value), np.zeros(len(texts), dtype=bool))


def test_a_classifier_needs_no_more_than_scores():
    assert Fixed(0.0).predict(["a", "b"]).tolist() == [True, True]
    assert Fixed(-1e-9).predict(["a"]).tolist() == [False]
    assert Fixed(2.0).predict_proba(np.array(["a", "b"])).tolist() == [[expit(-2.0), expit(2.0)]] * 2
    assert Fixed(2.0).predict_proba([]).shape == (0, 2)
    assert Classifier.classes_ == ("legitimate", "fraud")


@pytest.mark.parametrize(
    ("texts", "message"), [("one", "texts is one text, 'one'; expected several"), (["a", None], "text 1 is None")]
)
def test_what_is_no_list_of_texts_is_refused(texts, message):
    with pytest.raises(UserError, match=message):
        Fixed(0.0).predict_proba(texts)


def test_a_score_that_is_no_number_is_an_error(selected, monkeypatch):
    monkeypatch.chdir(selected)
    select_system(selected, "baseline")
    classifier = load()
    nan = Scores(np.array([0.0, np.nan]), np.zeros(2, dtype=bool))
    monkeypatch.setattr(type(classifier.scorer), "score", lambda *_: nan)
    with pytest.raises(UserError, match="text 1: the model's score is nan"):
        classifier.predict_proba(["a", "b"])


def test_a_folder_with_an_export_is_loaded_as_one(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no selected model: run `dvc repro`"):
        load(tmp_path)
    (tmp_path / api.EXPORT_FILE).write_text("{}", encoding="utf-8")
    monkeypatch.setitem(__import__("sys").modules, "stages.export.load", type("m", (), {"load_export": str}))
    assert load(str(tmp_path)) == str(tmp_path)
