"""Written answers."""

import pytest
import torch

from stages.evaluate.generate import generate_verdicts, parse_verdict
from stages.model.load import load_base
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
def test_a_verdict_is_parsed_from_an_answer_or_none(answer, verdict):
    assert parse_verdict(answer) is verdict


def test_generation_in_a_batch_gives_the_answers_of_each_text_alone(base_folder, prompt, sample_texts):
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
