"""Predictions of the model, of the base model and of the baseline."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stages import params
from stages.errors import UserError
from stages.evaluate.choices import Valid, choose_on_valid
from stages.evaluate.predictors import Predictions, scoring_predictor
from stages.metrics import ThresholdRule
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.model.scoring import LabelScores
from stages.text.example import Example
from tests.conftest import METHODS, ROOT

EVALUATE = replace(
    params.load(ROOT / "params.yaml").evaluate, bootstrap_samples=400, without_categories=[], further_sets={}
)


def test_unparsable_answers_are_counted_separately():
    y_score = np.array([1.0, 0.0, np.nan, 1.0])
    system = Predictions(y_score, 0.5, seconds=2.0)
    metrics = system.metrics([True, True, True, False])
    assert (metrics["tp"], metrics["fn"], metrics["fp"], metrics["tn"]) == (1, 2, 1, 0)
    assert metrics["unparsable"] == 1
    assert metrics["samples_per_second"] == 2.0
    assert "average_precision" not in metrics
    assert system.y_pred.tolist() == [True, False, False, True]


def test_a_baseline_that_can_not_reach_the_precision_raises_no_alarm():
    rule = ThresholdRule("precision_at_least", min_precision=0.9)
    valid = Valid.of([Example("a", False), Example("b", True)], rule, "platt", 10)
    assert choose_on_valid(valid, np.array([1.0, -1.0])).threshold > 1
    assert 0 < choose_on_valid(valid, np.array([-1.0, 1.0])).threshold < 1


def test_a_text_whose_score_is_no_number_is_an_error(base_folder, prompt, train_params, monkeypatch):
    """In a set of harmless texts alone no metric would stop at it: it would be a text without a false alarm."""

    def overflow(model, prompt, texts, budget, title):
        log_odds = np.where(np.array(texts) == "long", np.nan, [float(n % 2) for n in range(len(texts))])
        return LabelScores(log_odds, np.zeros(len(texts), dtype=bool))

    monkeypatch.setattr("stages.evaluate.predictors.label_scores", overflow)
    model = attach_adapter(load_base(METHODS["lora"], base_folder, torch.device("cpu")), train_params)
    examples = [Example("a", False), Example("b", True)]
    valid = Valid.of(examples, ThresholdRule("max_f1"), "platt", 10)
    predict = scoring_predictor(model, prompt, EVALUATE, choose_on_valid(valid, np.array([-1.0, 1.0])))
    harmless = [Example("short", False, source="calm:1"), Example("long", False, source="calm:2")]
    with pytest.raises(UserError, match="calm:2: the model's score is nan; expected a finite number"):
        predict("calm", harmless)
