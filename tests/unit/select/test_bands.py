"""Bands cost least and hold the budget where the answer is known, and what they promise is kept."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import expit, logit

from stages import params
from stages.artifacts import read_json, write_csv, write_json
from stages.bands import BLOCK, PASS, REVIEW, BandRule, Bands, choose_bands, figures_of_set
from stages.classifier.trained import read_selected
from stages.metrics import ThresholdRule, choose_threshold, fit_calibration
from stages.model.load import ModelError
from stages.paths import BASELINE, CHECKPOINTS, METRICS, PLOTS, PROBE, PROCESSED, PROMPT_FILE, SELECTED
from stages.select import __main__ as select
from stages.select.bands import band_bounds, promise_bands
from stages.text.example import Example, write_examples
from tests.unit.select.test_promise import valid_rows

COST = {"fp": 1, "fn": 5, "review": 0.2}
GRID = np.arange(1, 200) / 200


def expected_cost(bands, fraud=1.0, harmless=1.0):
    """Of texts at GRID, if the probabilities are right and the classes stand for so many texts."""
    band = bands.numbers(GRID)
    fraud, harmless = GRID * fraud, (1 - GRID) * harmless
    blocked, reviewed, passed = harmless[band == BLOCK], (fraud + harmless)[band == REVIEW], fraud[band == PASS]
    return COST["fp"] * blocked.sum() + COST["review"] * reviewed.sum() + COST["fn"] * passed.sum()


def test_costs_give_the_thresholds_of_the_three_decisions():
    """Review from 0.2 / 5 on, block from 1 - 0.2 / 1 on."""
    found = choose_bands(np.array([True, False]), np.array([0.7, 0.3]), 0.5, BandRule(COST))
    assert (found.review, found.block) == pytest.approx((0.04, 0.8))


@pytest.mark.parametrize("fraction", [None, 0.05, 0.9])
def test_no_pair_of_thresholds_costs_less(fraction):
    y_true = np.arange(100) < 40
    ratios = (1, 1) if fraction is None else (fraction / 0.4, (1 - fraction) / 0.6)
    found = choose_bands(y_true, np.full(100, 0.4), 0.5, BandRule(COST, fraud_fraction=fraction))
    edges = np.append(GRID, 1.1)
    least = min(expected_cost(Bands(low, high), *ratios) for low in edges[::4] for high in edges[::4] if low <= high)
    assert expected_cost(found, *ratios) <= least * (1 + 1e-9)
    assert found.review < found.block


@pytest.mark.parametrize(("budget", "reviewed"), [(50, 5), (59.9, 5), (60, 6), (999, 99)])
def test_a_budget_holds_the_texts_nearest_to_the_threshold(budget, reviewed):
    log_odds = np.random.default_rng(0).normal(size=100)
    found = choose_bands(log_odds > 0, expit(log_odds), expit(0.3), BandRule(reviews_per_1000=budget))
    band = found.numbers(expit(log_odds))
    near = np.argsort(np.abs(log_odds - 0.3))
    assert set(np.flatnonzero(band == REVIEW)) == set(near[:reviewed])
    assert logit(found.block) - 0.3 == pytest.approx(0.3 - logit(found.review))


def test_a_budget_is_for_the_share_of_fraud_that_is_meant():
    """At 5 % fraud, each of 50 texts of fraud stands for 0.1 texts and each harmless one for 1.9."""
    y_true, log_odds = np.arange(100) % 2 == 0, np.linspace(-3, 3, 100)
    rule = BandRule(reviews_per_1000=60, fraud_fraction=0.05)
    found = choose_bands(y_true, expit(log_odds), 0.5, rule)
    assert figures_of_set(y_true, expit(log_odds), found, rule)["reviews_per_1000"] == pytest.approx(60)
    band = found.numbers(expit(log_odds))
    assert [int((band[y_true == label] == REVIEW).sum()) for label in (True, False)] == [3, 3]


@pytest.mark.parametrize("threshold", [0.0, 1e-300, 0.5, 1.0, np.nextafter(1, 2)])
def test_the_threshold_never_leaves_the_band_of_a_budget(threshold):
    probability = np.array([0.0, 0.2, 0.4, 0.9, 1.0])
    found = choose_bands(probability > 0.5, probability, threshold, BandRule(reviews_per_1000=300))
    assert found.review <= threshold <= found.block
    assert np.isfinite((found.review, found.block)).all()


def test_figures_of_known_bands():
    y_true = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    probability = np.array([0.9, 0.9, 0.5, 0.1, 0.9, 0.5, 0.5, 0.1, 0.1, 0.1])
    found = figures_of_set(y_true, probability, Bands(0.5, 0.9), BandRule(COST))
    assert found == pytest.approx(
        {
            "passed_per_1000": 400,
            "reviews_per_1000": 300,
            "blocked_per_1000": 300,
            "precision": 2 / 3,
            "missed": 1 / 4,
            "cost_per_1000": 100 * (1 + 3 * 0.2 + 5),
            "fraud_fraction": 0.4,
        }
    )
    rare = figures_of_set(y_true, probability, Bands(0.5, 0.9), BandRule(COST, fraud_fraction=0.1))
    assert rare["precision"] == pytest.approx(0.1 * 2 / 4 / (0.1 * 2 / 4 + 0.9 / 6))
    assert (rare["missed"], rare["fraud_fraction"]) == (1 / 4, 0.1)
    harmless = figures_of_set(np.zeros(10, dtype=bool), probability, Bands(0.5, 0.9), BandRule(COST, None, 0.1))
    assert harmless.keys() == {"passed_per_1000", "reviews_per_1000", "blocked_per_1000", "fraud_fraction"}
    assert harmless["fraud_fraction"] == 0


def promised_and_true(rule, strength, draws):
    """Of each draw of 340 rows in 170 units, what is promised, and what the chosen bands do to 200,000 rows."""
    threshold_rule = ThresholdRule("max_f1", fraud_fraction=rule.fraud_fraction)
    y_all, _, scores_all = valid_rows(10**6, 100_000, strength)
    for seed in range(draws):
        y_true, units, scores = valid_rows(seed, 170, strength)
        calibration = fit_calibration(y_true, scores, "platt")
        probability = calibration.probability(scores)
        bands = choose_bands(y_true, probability, choose_threshold(y_true, probability, threshold_rule), rule)
        true = figures_of_set(y_all, calibration.probability(scores_all), bands, rule)
        yield promise_bands(y_true, units, scores, (threshold_rule, rule), "platt"), true


@pytest.mark.parametrize(
    ("rule", "strength"), [(BandRule(reviews_per_1000=50), 1.0), (BandRule(COST), 2.0)], ids=["budget", "costs"]
)
def test_what_is_promised_is_kept_in_95_of_100_draws(rule, strength):
    kept = {}
    for promised, true in promised_and_true(rule, strength, 200):
        for name, side in (("precision", -1), ("missed", 1), ("reviews_per_1000", 1), ("cost_per_1000", 1)):
            if name in true:
                bound = promised[f"{name}_{'low' if side < 0 else 'high'}"]
                kept.setdefault(name, []).append(side * bound >= side * true[name])
    assert len(kept) == 3 + (rule.cost is not None)
    assert {name: len(values) for name, values in kept.items()} == dict.fromkeys(kept, 200)
    assert min(np.mean(values) for values in kept.values()) >= 0.95, kept


def test_few_reviews_at_a_small_share_of_fraud_are_bounded():
    """The review band then often holds fraud alone, while each harmless text of valid stands for two."""
    draws = promised_and_true(BandRule(reviews_per_1000=5, fraud_fraction=0.05), 1.0, 100)
    assert np.mean([promised["reviews_per_1000_high"] >= true["reviews_per_1000"] for promised, true in draws]) >= 0.95


def test_a_text_is_judged_by_choices_of_the_other_folds(monkeypatch):
    """Bands of all of valid hold the budget exactly; those of other folds don't."""
    y_true, units, scores = valid_rows(0, 60)
    rule = BandRule(reviews_per_1000=100)
    seen = []

    def spy(*arguments):
        seen.append(arguments[-1])
        return choose_bands(*arguments)

    monkeypatch.setattr("stages.select.bands.choose_bands", spy)
    promise_bands(y_true, units, scores, (ThresholdRule("max_f1"), rule), "platt")
    assert len(seen) == 10
    assert (np.sum(seen, axis=0) == 9).all()
    assert all(len(set(weights[units == unit])) == 1 for weights in seen for unit in range(60))


def test_a_block_band_without_a_mistake_promises_no_more_than_its_units_can():
    """None of 100 harmless texts is blocked: up to 1 - 0.05^(1/100) of them may be, where 1 % is fraud."""
    y_true, band = np.arange(200) < 100, np.where(np.arange(200) < 50, BLOCK, PASS)
    found = band_bounds(y_true, band, np.arange(200), BandRule(fraud_fraction=0.01))
    rate = 1 - 0.05 ** (1 / 100)
    assert found["precision"] == 1
    assert found["precision_low"] == pytest.approx(0.005 / (0.005 + 0.99 * rate))
    assert found["reviews_per_1000"] == 0 < found["reviews_per_1000_high"]
    assert "cost_per_1000" not in found
    nothing = band_bounds(y_true, np.zeros(200, dtype=int), np.arange(200), BandRule())
    assert "precision" not in nothing
    assert nothing["missed"] == nothing["missed_high"] == 1


BAD = [
    (5, "select.bands: found 5; expected dict"),
    ({}, "bands is {}; expected {cost: {fp: 1, fn: 5, review: 0.2}}, {reviews_per_1000: 50} or null"),
    ({"cost": COST, "reviews_per_1000": 5}, "expected {cost: {fp: 1, fn: 5, review: 0.2}}, {reviews_per_1000: 50}"),
    ({"review_per_1000": 5}, "bands is {'review_per_1000': 5}; expected"),
    ({"cost": 3}, "bands is {'cost': 3}; expected"),
    ({"cost": {"fp": 1, "fn": 5}}, "bands.cost is {'fn': 5, 'fp': 1}; expected numbers above 0"),
    ({"cost": COST | {"fn": 0}}, "bands.cost is"),
    ({"cost": COST | {"fn": True}}, "bands.cost is"),
    ({"cost": COST | {"review": 0.9}}, "bands.cost.review is 0.9; expected less than fp × fn / (fp + fn) = 0.8333"),
    ({"reviews_per_1000": 0}, "bands.reviews_per_1000 is 0; expected a number above 0 and below 1000"),
    ({"reviews_per_1000": 1000}, "bands.reviews_per_1000 is 1000; expected"),
    ({"reviews_per_1000": "50"}, "bands.reviews_per_1000 is '50'; expected"),
]


@pytest.mark.parametrize(("value", "message"), BAD)
def test_bad_bands_are_named(changed, value, message):
    with pytest.raises(params.ParamsError) as caught:
        params.load(changed({"select/bands": value}))
    assert message in str(caught.value)


@pytest.fixture
def run_select(tmp_path, monkeypatch, changed):
    """Runs the stage on scores as given, without a model, and returns the bytes of all that it writes."""
    monkeypatch.chdir(tmp_path)
    y_true, units, scores = valid_rows(5, 60)
    examples = [Example(f"文本{n}", bool(label), source=f"a:{n}", unit=int(units[n])) for n, label in enumerate(y_true)]
    write_examples(PROCESSED / "train.jsonl", examples)
    for folder in (BASELINE, PROBE):
        write_csv(folder / "valid.csv", ({"log_odds": repr(float(value))} for value in scores), ["log_odds"])
    write_csv(PLOTS / "valid.csv", [{"step": 3, "loss": 0.4, "average_precision": 0.9, "f1": 0.8}], ["step", "loss"])
    write_json(CHECKPOINTS / PROMPT_FILE, {"before": "a", "after": "b"})
    (CHECKPOINTS / "checkpoint-3").mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (CHECKPOINTS / "checkpoint-3" / name).write_text("{}")
    identity = {"id": "tiny", "revision": "1", "license": "none", "sha256": "0"}
    monkeypatch.setattr(select, "score_valid", lambda *arguments: (examples, scores))
    monkeypatch.setattr(select, "read_identity", lambda folder: identity)

    def run(changes):
        chosen = params.load(changed({f"select/{key}": value for key, value in changes.items()}))
        monkeypatch.setattr(params, "load", lambda: chosen)
        select.main()
        monkeypatch.setattr(params, "load", load)
        files = [path for folder in (SELECTED, METRICS) for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(path): path.read_bytes() for path in files}

    load = params.load
    return run


def test_without_bands_no_byte_names_them(run_select):
    null, without = run_select({}), run_select({"bands": None})  # null, and a params.yaml without the key
    assert null == without
    assert not [name for name, content in null.items() if b"bands" in content or b"review" in content]
    record = read_json(SELECTED / "selected.json")
    assert (read_selected(SELECTED).edges, read_selected(SELECTED).as_dict()) == (None, record)


def test_bands_stand_in_record_figures_and_card(run_select, capsys):
    before = run_select({})
    after = run_select({"bands": {"cost": COST}})
    record, figures = read_json(SELECTED / "selected.json"), read_json(METRICS / "select.json")
    assert (record["bands"]["review"], record["bands"]["block"]) == pytest.approx((0.04, 0.8))
    assert record["bands"] == figures["bands"]
    assert record["select"]["bands"] == {"cost": COST}
    assert (
        "| reviewed, blocked | from a probability of 0.0400, 0.8000 on |" in after[str(SELECTED / "README.md")].decode()
    )
    assert "of 1,000 texts are reviewed (at most" in capsys.readouterr().out
    del record["bands"], figures["bands"], record["select"]["bands"]
    assert record == json.loads(before[str(SELECTED / "selected.json")])
    assert figures == json.loads(before[str(METRICS / "select.json")])


def test_a_threshold_outside_of_the_review_band_is_warned_of(run_select, capsys):
    run_select({"bands": {"cost": COST}, "threshold": "precision_at_least", "min_precision": 0.99})
    assert "lies outside of the review band, from 0.0400 to 0.8000" in capsys.readouterr().out
    run_select({"bands": {"reviews_per_1000": 50}, "threshold": "precision_at_least", "min_precision": 0.99})
    assert "lies outside" not in capsys.readouterr().out


@pytest.mark.parametrize("edges", [{"review": 0.9, "block": 0.2}, {"review": float("nan"), "block": 0.2}])
def test_bands_that_make_no_sense_are_refused(run_select, edges):
    run_select({"bands": {"cost": COST}})
    record = read_json(SELECTED / "selected.json")
    (SELECTED / "selected.json").write_text(json.dumps(record | {"bands": record["bands"] | edges}))
    with pytest.raises(ModelError, match=r"bands\.review is .*; expected numbers, review at most block"):
        read_selected(SELECTED)


def test_a_set_keeps_its_bands_at_the_promised_share_of_fraud(run_select):
    run_select({"bands": {"reviews_per_1000": 100}, "fraud_fraction": 0.2})
    selected = read_selected(SELECTED)
    y_true, _, scores = valid_rows(6, 200)
    found = selected.bands_at_promised_fraction(y_true.tolist(), scores)
    band = selected.edges.numbers(selected.probability(scores))
    weights = np.where(y_true, 0.2 / y_true.mean(), 0.8 / (1 - y_true.mean()))
    assert found["fraud_fraction"] == 0.2
    assert found["reviews_per_1000"] == pytest.approx(1000 * np.average(band == REVIEW, weights=weights))
    assert found["precision"] == pytest.approx(np.average(y_true[band == BLOCK], weights=weights[band == BLOCK]))
    none = dataclasses.replace(selected, bands={})
    assert none.bands_at_promised_fraction(y_true.tolist(), scores) == {}
