"""Select reads the scores of valid."""

import numpy as np
import pytest

from stages import params
from stages.artifacts import write_json
from stages.errors import UserError
from stages.model.scoring import LabelScores
from stages.paths import CHECKPOINTS, PROCESSED, PROMPT_FILE
from stages.select.__main__ import score_valid
from stages.text.example import Example, write_examples
from tests.conftest import ROOT


def test_a_score_of_valid_that_is_no_number_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    valid = [Example("a", False, source="a:1"), Example("b", True, source="a:2")]
    write_examples(PROCESSED / "valid.jsonl", valid)
    write_json(CHECKPOINTS / PROMPT_FILE, {})
    monkeypatch.setattr("stages.select.__main__.require_whole_base", lambda folder: None)
    monkeypatch.setattr("stages.select.__main__.load_classifier", lambda *arguments: (None, None))
    monkeypatch.setattr("stages.select.__main__.merge_unquantized", lambda model: model)
    scores = LabelScores(np.array([0.5, np.inf]), np.zeros(2, dtype=bool))
    monkeypatch.setattr("stages.select.__main__.label_scores", lambda *arguments: scores)
    with pytest.raises(UserError, match="a:2: the model's score is inf; expected a finite number"):
        score_valid(params.load(ROOT / "params.yaml"), tmp_path)
