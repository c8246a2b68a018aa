import numpy as np
import pytest
import torch

from stages.evaluate.generate import generate_verdicts, parse_verdict
from stages.evaluate.systems import System, on_valid
from stages.model.load import load_base
from stages.params import Select
from stages.text.example import Example
from tests.conftest import METHODS


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
    system = System(y_score, 0.5, seconds=2.0)
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
