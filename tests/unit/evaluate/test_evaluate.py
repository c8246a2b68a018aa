from dataclasses import replace

import numpy as np
import pytest
import torch

from stages import params
from stages.artifacts import write_json
from stages.errors import UserError
from stages.evaluate.__main__ import decisions_told, tell
from stages.evaluate.compare import FEWEST_UNITS, report, slices
from stages.evaluate.generate import generate_verdicts, parse_verdict
from stages.evaluate.intervals import rate_interval
from stages.evaluate.predictors import Predictions, on_valid, scored, scoring_predictor, zero_shot_predictor
from stages.metrics import BEST_F1
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.model.scoring import LabelScores
from stages.params import Select
from stages.paths import CHECKPOINTS, PROCESSED, PROMPT_FILE
from stages.select.__main__ import score_valid
from stages.text.example import Example, write_examples
from tests.conftest import METHODS, ROOT

EVALUATE = replace(
    params.load(ROOT / "params.yaml").evaluate, bootstrap_samples=400, without_categories=[], further_sets={}
)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ('{"is_fraud": true}', True),
        (' {"is_fraud":false} and more', False),
        ('{"is_fraud": "True"}', True),
        ('```json\n{"is_fraud": false}\n```', False),
        ('{"is_fraud": 1}', None),
        ('{"is_fraud": tr', None),
        ('{"fraud": true}', None),
        ("fraud", None),
        ("", None),
        ("{" * 5000, None),
        ('{"a":' * 20000, None),
    ],
)
def test_a_verdict_is_read_or_it_is_none(answer, verdict):
    assert parse_verdict(answer) is verdict


def test_answers_that_can_not_be_read_are_counted_apart():
    y_score = np.array([1.0, 0.0, np.nan, 1.0])
    system = Predictions(y_score, 0.5, seconds=2.0)
    metrics = system.metrics([True, True, True, False])
    assert (metrics["tp"], metrics["fn"], metrics["fp"], metrics["tn"]) == (1, 2, 1, 0)
    assert metrics["unparsable"] == 1
    assert metrics["samples_per_second"] == 2.0
    assert "average_precision" not in metrics
    assert system.y_pred.tolist() == [True, False, False, True]


def test_a_system_to_compare_with_that_can_not_keep_the_promise_raises_no_alarm():
    rule = Select(
        metric="loss",
        threshold="precision_at_least",
        min_precision=0.9,
        cost={"fp": 1, "fn": 1},
        fraud_fraction=None,
    )
    valid = [Example("a", False), Example("b", True)]
    assert on_valid(valid, np.array([1.0, -1.0]), rule)[1] > 1
    assert 0 < on_valid(valid, np.array([-1.0, 1.0]), rule)[1] < 1


def test_generation_gives_each_text_what_it_gets_alone(base_folder, prompt, sample_texts):
    model = load_base(METHODS["lora"], base_folder, torch.device("cpu"))
    written = []
    decode = prompt.tokenizer.batch_decode

    def keep(tokens, **options):
        written.extend(decode(tokens, **options))
        return ['{"is_fraud": true}'] * len(tokens)

    texts = [*sample_texts[:3], "短"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt.tokenizer, "batch_decode", keep)
        assert generate_verdicts(model, prompt, texts, 4, 6) == [True] * 4
        assert generate_verdicts(model, prompt, texts, 1, 6) == [True] * 4
    assert written[:4] == written[4:]
    assert any(written)


def set_of(labels, log_odds):
    examples = [
        Example("字" * (1 + n), bool(label), unit=n // 2, source=f"a:{n}", category="k")
        for n, label in enumerate(labels)
    ]
    system = scored(np.array(log_odds), 1, 0.5)
    return examples, dict.fromkeys(("model", "zero_shot", "baseline"), system)


def test_harmless_texts_alone_have_a_rate_of_false_alarms(capsys):
    """Not precision, recall and F1 of 0.000, as if the model had failed."""
    examples, systems = set_of([False] * 40, [1.0] * 3 + [-1.0] * 37)
    whole = report(examples, systems, EVALUATE)
    model = whole["model"]
    assert model["false_alarms_per_1000"] == 75
    assert 0 <= model["false_alarms_per_1000_low"] < 75 < model["false_alarms_per_1000_high"] < 300
    assert whole["always_fraud"]["false_alarms_per_1000"] == 1000
    assert model["precision"] == 0  # as before, by convention
    tell("ads", whole)
    printed = capsys.readouterr().out
    bounds = f"[{model['false_alarms_per_1000_low']:.1f}, {model['false_alarms_per_1000_high']:.1f}]"
    expected = (
        f"no fraud, so precision, recall and F1 are undefined; 75.0 {bounds} false alarms per 1,000 harmless texts"
    )
    assert f"evaluate: ads: model: {expected}" in printed
    assert "0.000" not in printed


def test_fraud_alone_has_a_recall():
    examples, systems = set_of([True] * 40, [1.0] * 30 + [-1.0] * 10)
    model = report(examples, systems, EVALUATE)["model"]
    assert "false_alarms_per_1000" not in model
    assert model["recall_low"] < model["recall"] == 0.75 < model["recall_high"]
    assert decisions_told(model).startswith("no harmless texts, so precision and F1 say nothing; recall 0.750 [0.")


def test_a_system_without_an_alarm_has_no_precision():
    examples, systems = set_of([True, False] * 20, [-1.0] * 40)
    model = report(examples, systems, EVALUATE)["model"]
    told = decisions_told(model)
    assert told.startswith("no alarm, so precision is undefined; recall 0.000, f1 0.000, 0.0 [0.0, ")
    assert model["false_alarms_per_1000_high"] > 100  # none among 20 units is no proof of none


def test_false_alarms_stand_beside_precision_in_each_part():
    examples, systems = set_of([True, False] * 20, [1.0, -1.0] * 18 + [-1.0, 1.0] * 2)
    whole = report(examples, systems, EVALUATE)
    assert whole["model"]["false_alarms_per_1000"] == 100
    assert decisions_told(whole["model"]).startswith("precision 0.900, recall 0.900, f1 0.900, 100.0 [")
    few, systems = set_of([False] * 2 * (FEWEST_UNITS - 1), [1.0] * 2 * (FEWEST_UNITS - 1))
    assert "false_alarms_per_1000_low" not in report(few, systems, EVALUATE)["model"]


def test_a_slice_leaves_open_what_its_rows_do_not_define():
    examples, systems = set_of([False] * 10 + [True] * 10, [1.0] * 5 + [-1.0] * 15)
    examples = [replace(example, category=str(example.label)) for example in examples]
    of_category = {row["value"]: row for row in slices("x", examples, systems) if row["by"] == "category"}
    harmless, fraud = of_category["False"], of_category["True"]
    assert [harmless[name] for name in ("precision", "recall", "f1")] == [None] * 3
    assert harmless["false_alarms_per_1000"] == 500
    assert (fraud["precision"], fraud["recall"], fraud["f1"]) == (None, 0, 0)
    assert "false_alarms_per_1000" not in fraud


def test_the_interval_of_a_rate_is_that_of_a_plain_bootstrap_over_units():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    happened = (units % 4 == 0) & (rng.random(len(units)) < 0.8)
    rows_of = [np.flatnonzero(units == unit) for unit in range(60)]
    plain = [happened[np.concatenate([rows_of[unit] for unit in rng.integers(0, 60, 60)])].mean() for _ in range(4000)]
    assert rate_interval(happened, units, 4000) == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.01)


@pytest.mark.parametrize("units", [5, 100])
def test_what_never_happened_is_not_ruled_out(units):
    """Wilson's bound at 0 of n is z² / (n + z²)."""
    rows = np.repeat(np.arange(units), 3)
    bound = 1.959964**2 / (units + 1.959964**2)
    assert rate_interval(np.zeros(3 * units, dtype=bool), rows, 100) == pytest.approx((0, bound))
    assert rate_interval(np.ones(3 * units, dtype=bool), rows, 100) == pytest.approx((1 - bound, 1))


@pytest.mark.parametrize("adapter", [True, False])
def test_a_text_whose_score_is_no_number_ends_the_stage(base_folder, prompt, train_params, monkeypatch, adapter):
    """In a set of harmless texts alone no metric would stop at it: it would be a text without a false alarm."""

    def overflow(model, prompt, texts, budget, title):
        log_odds = np.where(np.array(texts) == "long", np.nan, [float(n % 2) for n in range(len(texts))])
        return LabelScores(log_odds, np.zeros(len(texts), dtype=bool))

    monkeypatch.setattr("stages.evaluate.predictors.label_scores", overflow)
    model = attach_adapter(load_base(METHODS["lora"], base_folder, torch.device("cpu")), train_params)
    valid = [Example("a", False), Example("b", True)]
    predict = (
        scoring_predictor(model, prompt, EVALUATE, 1.0, 0.5)
        if adapter
        else zero_shot_predictor(model, prompt, EVALUATE, valid, BEST_F1)
    )
    harmless = [Example("short", False, source="calm:1"), Example("long", False, source="calm:2")]
    with pytest.raises(UserError, match="calm:2: the model's score is nan; expected a number"):
        predict("calm", harmless)


def test_a_score_of_valid_that_is_no_number_chooses_no_threshold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    valid = [Example("a", False, source="a:1"), Example("b", True, source="a:2")]
    write_examples(PROCESSED / "valid.jsonl", valid)
    write_json(CHECKPOINTS / PROMPT_FILE, {})
    monkeypatch.setattr("stages.select.__main__.require_whole_base", lambda folder: None)
    monkeypatch.setattr("stages.select.__main__.load_classifier", lambda *arguments: (None, None))
    monkeypatch.setattr("stages.select.__main__.merge_unquantized", lambda model: model)
    scores = LabelScores(np.array([0.5, np.inf]), np.zeros(2, dtype=bool))
    monkeypatch.setattr("stages.select.__main__.label_scores", lambda *arguments: scores)
    with pytest.raises(UserError, match="a:2: the model's score is inf; expected a number"):
        score_valid(params.load(ROOT / "params.yaml"), tmp_path)


@pytest.mark.parametrize("labels", [[False] * 40, [True, False] * 20])
def test_answers_that_can_not_be_read_are_no_silent_calm(labels, capsys):
    """In a set of harmless texts they would be 0.0 false alarms."""
    examples, systems = set_of(labels, [0.0] * 40)
    systems |= {"model": Predictions(np.array([np.nan] * 30 + [0.0] * 10), 0.5)}
    whole = report(examples, systems, EVALUATE)
    assert whole["model"]["unparsable"] == 30
    tell("calm", whole)
    said = capsys.readouterr().out
    assert "evaluate: WARNING: calm: model: 30 of 40 answers could not be read, and count as no alarm\n" in said
    assert said.count("WARNING") == 1
