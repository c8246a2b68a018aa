"""The simulation of coverage: its truth is known by formula, and its table is the one of the docs."""

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks.coverage import RULES, STRENGTHS, cover, draw, keep_promises, ladder, predict, table, truths
from stages.artifacts import read_json
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def population():
    return draw(np.random.default_rng(2), np.full(10_000, 2))


def test_the_truth_is_that_of_normal_scores(population):
    """Scores 2d apart with standard deviation 1: the area under the ROC curve is Phi(sqrt(2) d)."""
    valid = draw(np.random.default_rng(0), np.full(2000, 2))
    found = truths(predict(ladder(valid, RULES["max_f1"], 2), population), population.y_true)
    for system, strength in STRENGTHS.items():
        assert found[f"{system} roc_auc"] == pytest.approx(norm.cdf(2**0.5 * strength), abs=0.005)
    # A score of 2 d s is the log-odds itself, so the threshold F*/2 has the highest F1.
    cut = np.linspace(-4, 4, 8001)
    best = np.max(2 * norm.sf(cut - 1) / (1 + norm.sf(cut - 1) + norm.sf(cut + 1)))
    assert found["model f1"] == pytest.approx(best, abs=0.01)


def test_units_are_correlated_and_so_are_systems(population):
    noise = {name: population.scores[name] / (2 * d) - d * np.where(population.y_true, 1, -1)
             for name, d in STRENGTHS.items()}  # fmt: skip
    assert np.corrcoef(noise["model"][::2], noise["model"][1::2])[0, 1] == pytest.approx(0.3, abs=0.03)
    assert np.corrcoef(noise["model"], noise["baseline"])[0, 1] == pytest.approx(0.5, abs=0.03)


def test_the_table_of_the_docs_is_of_the_committed_figures():
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    assert "\n".join(table(read_json(ROOT / "results/coverage.json"))) in page


@pytest.mark.slow
def test_intervals_and_promises_hold_in_about_as_many_draws_as_they_say(population):
    """60 draws: three standard errors below .95 are .87."""
    report = cover(np.full(40, 2), 60, 200, population)
    assert {name: each["covered"] for name, each in report.items() if each["covered"] < 0.86} == {}
    for metrics in keep_promises(60, 60, population).values():
        assert all(each["kept"] >= 0.85 for each in metrics.values()), metrics
