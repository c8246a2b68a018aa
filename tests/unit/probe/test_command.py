"""What stage probe refuses."""

import numpy as np
import pytest

from stages.errors import UserError
from stages.model.hidden import TextStates
from stages.paths import BASE_MODEL
from stages.probe import __main__ as command
from stages.text.example import Example
from tests.conftest import ROOT


@pytest.mark.parametrize("bad", ["states", "log_odds"])
def test_a_text_whose_numbers_are_not_finite_is_named(monkeypatch, bad):
    """In a further set too, where no fit and no metric would stop at it."""

    def passes(model, prompt, texts, layers, budget, title):
        found = TextStates(np.ones((2, 1, 4), dtype=np.float32), np.ones(2), np.zeros(2, dtype=bool))
        if title.startswith("calm"):
            getattr(found, bad)[1] = np.nan
        return found

    monkeypatch.chdir(ROOT)
    sets = {
        name: [Example("a", False, source=f"{name}:1"), Example("b", True, source=f"{name}:2")]
        for name in ("train", "valid", "test", "calm")
    }
    for name, value in {
        "read_sets": lambda chosen: sets,
        "require_whole_base": lambda folder: None,
        "load_base": lambda method, folder: folder,
        "shard_layers": lambda model, method: model,
        "load_tokenizer": lambda folder: None,
        "build_prompt": lambda tokenizer, **settings: None,
        "layers_to_keep": lambda model: [1] if model == BASE_MODEL else pytest.fail("another model"),
        "text_states": passes,
        "fit_probe": lambda *data: pytest.fail("was fitted"),
    }.items():
        monkeypatch.setattr(command, name, value)
    with pytest.raises(UserError, match="calm:2: the model's score is nan; expected a finite number"):
        command.main()
