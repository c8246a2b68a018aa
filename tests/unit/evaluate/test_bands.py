"""What the bands keep on a set stands under `kept`, only where there are bands."""

from types import SimpleNamespace

import numpy as np

from stages.evaluate.__main__ import keep_promise, with_bands
from stages.evaluate.messages import print_promise
from stages.evaluate.predictors import Predictions
from stages.text.example import Example

BANDS = {"reviews_per_1000": 61.04, "blocked_per_1000": 400.0, "precision": 0.9, "missed": 0.1, "fraud_fraction": 0.5}


def selected(bands):
    return SimpleNamespace(
        system="model",
        at_promised_fraction=lambda labels, log_odds: {"precision": 0.8},
        bands_at_promised_fraction=lambda labels, log_odds: bands,
    )


def test_a_set_has_bands_beside_its_metrics_and_alone_with_one_class():
    both = [Example("a", True), Example("b", False)]
    predictions = {"model": Predictions(np.array([0.9, 0.1]), 0.5, np.array([2.0, -2.0]))}
    written = {"model": Predictions(np.array([1.0, 0.0]), 0.5)}
    assert keep_promise(selected({}), both, predictions) == {"precision": 0.8}
    assert keep_promise(selected(BANDS), both, predictions) == {"precision": 0.8, "bands": BANDS}
    assert keep_promise(selected(BANDS), both[:1] * 2, predictions) == {"bands": BANDS}
    assert keep_promise(selected({}), both[:1] * 2, predictions) == {}
    assert keep_promise(selected(BANDS), both, written) == {}
    assert with_bands({"f1": 1.0}, None) == {"f1": 1.0}


def test_bounds_stand_beside_what_is_kept_at_the_same_share_of_fraud(capsys):
    promised = {
        "bands": {"reviews_per_1000_high": 70.0, "precision_low": 0.85, "missed_high": 0.2, "fraud_fraction": 0.5}
    }
    print_promise("test", {}, {"bands": BANDS}, promised)
    print_promise("harmless", {}, {"bands": BANDS | {"fraud_fraction": 0.0}}, promised)
    test, harmless = capsys.readouterr().out.splitlines()
    assert test == (
        "evaluate: test: bands, with 50% fraud: reviews per 1,000 texts 61.0 (promised at most 70), blocked 400.0, "
        "precision of them 0.900 (promised at least 0.85), share of fraud that passes 0.100 (promised at most 0.2)"
    )
    assert "promised" not in harmless
