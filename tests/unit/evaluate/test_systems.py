"""Combinations, the best cheap system, and the printed ladder."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score

from stages import params
from stages.classifier.systems import COMBINATIONS, PARTS, add_up
from stages.evaluate.choices import Valid, choose_on_valid
from stages.evaluate.compare import compare_systems
from stages.evaluate.messages import print_comparison
from stages.evaluate.predictors import Predictions, scored
from stages.evaluate.systems import LADDER, best_cheap_system, combined_systems, with_combinations
from stages.metrics import BEST_F1, Calibration, fit_calibration
from stages.select.system import choose_system, scores_of_systems
from stages.text.example import Example
from tests.conftest import ROOT

EVALUATE = replace(
    params.load(ROOT / "params.yaml").evaluate, bootstrap_samples=50, without_categories=[], further_sets={}
)
ROWS = 300


def draw(rng):
    """Labels, units, and scores of three systems whose errors are independent; the probe is on another scale."""
    y_true = rng.random(ROWS) < 0.5
    scores = {name: rng.normal(0, 1, ROWS) + strength * y_true for name, strength in STRENGTH.items()}
    scores["probe"] = 40 * scores["probe"] - 30
    return y_true, np.arange(ROWS) // 2, scores


STRENGTH = {"model": 1.8, "zero_shot": 0.1, "baseline": 1.5, "probe": 1.2}


@pytest.fixture
def sets():
    """Valid; the rows of test; predictions of each single system on test."""
    rng = np.random.default_rng(0)
    y_true, units, of_valid = draw(rng)
    valid = Valid(y_true, units, BEST_F1, "platt", 50)
    y_test, test_units, of_test = draw(rng)
    examples = [
        Example("字", bool(label), unit=int(unit), source=f"a:{n}")
        for n, (label, unit) in enumerate(zip(y_test, test_units, strict=True))
    ]
    predictions = {name: scored(choose_on_valid(valid, of_valid[name]), of_test[name]) for name in STRENGTH}
    return (y_true, of_valid), (y_test, of_test), examples, predictions


def test_a_combination_is_the_sum_of_calibrated_log_odds_and_calibrated_itself(sets):
    (y_valid, of_valid), (_, of_test), _, predictions = sets
    whole = with_combinations(predictions, combined_systems(predictions))
    assert whole.keys() == {*PARTS, "zero_shot"}
    for name, (one, other) in COMBINATIONS.items():
        lines = [fit_calibration(y_valid, of_valid[part], "platt") for part in (one, other)]
        on_valid = sum(line.log_odds(of_valid[part]) for line, part in zip(lines, (one, other), strict=True))
        last = fit_calibration(y_valid, on_valid, "platt")
        on_test = sum(line.log_odds(of_test[part]) for line, part in zip(lines, (one, other), strict=True))
        assert whole[name].log_odds == pytest.approx(on_test)
        assert whole[name].y_score == pytest.approx(expit(last.log_odds(on_test)))


def test_independent_errors_cancel_out_in_a_combination(sets):
    _, (y_test, _), _, predictions = sets
    whole = with_combinations(predictions, combined_systems(predictions))
    found = {name: average_precision_score(y_test, output.log_odds) for name, output in whole.items()}
    for name, parts in COMBINATIONS.items():
        assert found[name] > max(found[part] for part in parts)


def test_select_adds_up_as_evaluate_does(sets):
    (y_valid, of_valid), (_, of_test), _, predictions = sets
    whole = with_combinations(predictions, combined_systems(predictions))
    for name, system in scores_of_systems(of_valid, y_valid, "platt").items():
        scores = whole[name].log_odds
        assert (add_up(of_test, system.parts) if system.parts else of_test[name]).tolist() == scores.tolist()
        assert system.log_odds.tolist() == whole[name].system.log_odds.tolist()


def test_a_calibration_of_each_part_makes_the_scale_of_its_scores_irrelevant():
    rng = np.random.default_rng(1)
    y_true, _, scores = draw(rng)
    other = scores | {"baseline": scores["baseline"] * 30 + 7}
    one, two = (scores_of_systems(each, y_true, "platt")["combined"].log_odds for each in (scores, other))
    assert one == pytest.approx(two, abs=1e-4)


def test_written_answers_are_not_combined(sets):
    *_, predictions = sets
    predictions["model"] = Predictions(np.ones(ROWS), 0.5)
    assert combined_systems(predictions).keys() == {"combined_cheap"}


@pytest.mark.parametrize(
    ("strengths", "best"), [((2.5, 0), "baseline"), ((0, 2.5), "probe"), ((1, 1), "combined_cheap")]
)
def test_the_best_cheap_system_is_chosen_on_out_of_fold_scores_of_train(strengths, best):
    rng = np.random.default_rng(3)
    y_true = rng.random(600) < 0.4
    baseline, probe = (rng.normal(0, 1, 600) + strength * y_true for strength in strengths)
    # What is of no use is noise at a large scale, which its own calibration removes.
    train = [Example("字", bool(label)) for label in y_true]
    scores = {"baseline": baseline, "probe": 100 * probe}
    found = best_cheap_system(train, scores, "platt")
    parts = {name: fit_calibration(y_true, values, "platt") for name, values in scores.items()}
    every = scores | {"combined_cheap": add_up(scores, parts)}
    precision = {name: average_precision_score(y_true, values) for name, values in every.items()}
    assert precision[found] == max(precision.values())
    assert found == best or precision[found] - precision[best] < 0.01
    unknown = {"baseline": np.full(600, np.nan), "probe": probe}
    assert best_cheap_system(train, unknown, "platt") == "baseline"


def test_best_is_the_highest_on_valid_and_a_name_is_itself():
    rng = np.random.default_rng(0)
    y_true, _, scores = draw(rng)
    systems = scores_of_systems(scores, y_true, "platt")
    name, found = choose_system("best", systems, y_true)
    assert found[name] == max(found.values())
    assert name == "combined"
    assert choose_system("probe", systems, y_true) == ("probe", found)
    assert systems["probe"].parts == {}
    assert all(isinstance(part, Calibration) for part in systems["combined"].parts.values())


def test_the_ladder_is_one_table(sets, capsys):
    *_, examples, predictions = sets
    predictions = with_combinations(predictions, combined_systems(predictions))
    report = compare_systems(examples, predictions, EVALUATE, "combined_cheap")
    print_comparison("test", report, 0.02)
    lines = capsys.readouterr().out.splitlines()
    table = lines[: len(LADDER) + 1]
    assert table[0].split("  ")[0] == "evaluate: test: system"
    assert [line.split()[2] for line in table[1:]] == list(LADDER)
    rows = {line.split()[2]: line for line in table}
    model = report["model"]
    bounds = f"{model['average_precision']:.3f} [{model['average_precision_low']:.3f}, "
    assert bounds in rows["model"]
    assert f"{model['f1']:.3f}" in rows["model"]
    assert rows["model"].endswith(f"{report['ahead']['model']['average_precision']:+.3f}")
    assert rows["combined_cheap"].endswith("best")
    assert len({line.index("  0.") for line in table[2:]}) == 1  # columns are aligned
    said = "\n".join(lines[len(table) :])
    assert "model minus combined_cheap, the best cheap system" in said
    assert "probe minus" not in said
