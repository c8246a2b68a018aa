"""What evaluate prints of a set: false alarms, and metrics that the set does not define."""

from dataclasses import replace

import numpy as np
import pytest

from stages import params
from stages.evaluate.compare import compare_systems
from stages.evaluate.intervals import FEWEST_UNITS
from stages.evaluate.messages import format_decisions, print_comparison
from stages.evaluate.predictors import Predictions
from tests.conftest import ROOT
from tests.unit.evaluate.systems import set_of

EVALUATE = replace(
    params.load(ROOT / "params.yaml").evaluate, bootstrap_samples=400, without_categories=[], further_sets={}
)


def test_a_set_of_harmless_texts_alone_has_a_rate_of_false_alarms(capsys):
    """Not precision, recall and F1 of 0.000, as if the model had failed."""
    examples, systems = set_of([False] * 40, [1.0] * 3 + [-1.0] * 37)
    whole = compare_systems(examples, systems, EVALUATE)
    model = whole["model"]
    assert model["false_alarms_per_1000"] == 75
    assert 0 <= model["false_alarms_per_1000_low"] < 75 < model["false_alarms_per_1000_high"] < 300
    assert whole["always_fraud"]["false_alarms_per_1000"] == 1000
    assert model["precision"] == 0  # as before, by convention
    print_comparison("ads", whole, 0.02)
    printed = capsys.readouterr().out
    bounds = f"[{model['false_alarms_per_1000_low']:.1f}, {model['false_alarms_per_1000_high']:.1f}]"
    expected = (
        f"no fraud, so precision, recall and F1 are undefined; 75.0 {bounds} false alarms per 1,000 harmless texts"
    )
    assert f"evaluate: ads: model: {expected}" in printed
    assert "0.000" not in printed


def test_a_set_of_fraud_alone_has_a_recall():
    examples, systems = set_of([True] * 40, [1.0] * 30 + [-1.0] * 10)
    model = compare_systems(examples, systems, EVALUATE)["model"]
    assert "false_alarms_per_1000" not in model
    assert model["recall_low"] < model["recall"] == 0.75 < model["recall_high"]
    assert format_decisions(model).startswith("no harmless texts, so precision and F1 say nothing; recall 0.750 [0.")


def test_a_system_without_an_alarm_has_no_precision():
    examples, systems = set_of([True, False] * 20, [-1.0] * 40)
    model = compare_systems(examples, systems, EVALUATE)["model"]
    told = format_decisions(model)
    assert told.startswith("no alarm, so precision is undefined; recall 0.000, f1 0.000, 0.0 [0.0, ")
    assert model["false_alarms_per_1000_high"] > 100  # none among 20 units is no proof of none


def test_false_alarms_are_reported_beside_precision_in_each_part():
    examples, systems = set_of([True, False] * 20, [1.0, -1.0] * 18 + [-1.0, 1.0] * 2)
    whole = compare_systems(examples, systems, EVALUATE)
    assert whole["model"]["false_alarms_per_1000"] == 100
    assert format_decisions(whole["model"]).startswith("precision 0.900, recall 0.900, f1 0.900, 100.0 [")
    few, systems = set_of([False] * 2 * (FEWEST_UNITS - 1), [1.0] * 2 * (FEWEST_UNITS - 1))
    assert "false_alarms_per_1000_low" not in compare_systems(few, systems, EVALUATE)["model"]


@pytest.mark.parametrize("labels", [[False] * 40, [True, False] * 20])
def test_unparsable_answers_are_warned_of(labels, capsys):
    """In a set of harmless texts they would be 0.0 false alarms."""
    examples, systems = set_of(labels, [0.0] * 40)
    systems |= {"model": Predictions(np.array([np.nan] * 30 + [0.0] * 10), 0.5)}
    whole = compare_systems(examples, systems, EVALUATE)
    assert whole["model"]["unparsable"] == 30
    print_comparison("calm", whole, 0.02)
    said = capsys.readouterr().out
    assert "evaluate: WARNING: calm: model: 30 of 40 answers could not be read, and count as no alarm\n" in said
    assert said.count("WARNING") == 1
