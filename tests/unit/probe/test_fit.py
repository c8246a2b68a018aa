"""The choice of layer and C, and the fit, on states whose signal is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from stages.classifier.probe import read_probe, write_probe
from stages.cross_validation import grouped_folds
from stages.probe.fit import DEFAULT_C, GRID, fit_path, fit_probe, search

LAYERS = [1, 2, 3]


@pytest.fixture
def rows():
    """Labels, units and states of three layers, of which the second holds the label in a direction of small scale."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(120), 2)
    labels = rng.random(240) < 0.5
    states = rng.normal(0, 50, (240, 3, 20)).astype(np.float32)
    states[:, 1, 7] = 0.01 * (rng.normal(0, 1, 240) + 2 * labels)
    return states, labels, units


def test_the_layer_with_the_signal_is_chosen(rows):
    fitted = fit_probe(rows[0], LAYERS, *rows[1:], 0)
    assert fitted.probe.layer == fitted.chosen["layer"] == 2
    by_layer = fitted.chosen["average_precision_cv_by_layer"]
    assert by_layer["2"] == fitted.chosen["average_precision_cv"] == max(by_layer.values()) > 0.85
    assert average_precision_score(rows[1], fitted.out_of_fold) == pytest.approx(by_layer["2"], abs=1e-3)
    assert np.isfinite(fitted.out_of_fold).all()


def test_all_layers_are_tried_at_one_c_and_the_best_at_all(rows):
    expected = {(place, DEFAULT_C) for place in range(3)} | {(1, c) for c in GRID}
    assert {(each.place, each.c) for each in search(*rows, 0)} == expected


def test_labels_without_signal_give_out_of_fold_scores_of_a_coin(rows):
    """Scores in sample would be far above it: there are 20 numbers for 240 rows."""
    states, labels, units = rows
    fitted = fit_probe(states[:, [0, 2]], [1, 3], labels, units, 0)
    assert average_precision_score(labels, fitted.out_of_fold) < labels.mean() + 0.12


def test_the_fit_is_scikit_learns_pipeline(rows):
    states, labels, _ = rows
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000)).fit(states[:, 1], labels)
    *_, (weight, intercept) = fit_path(states[:, 1], labels, (1e-3, 1e-2, 0.1))
    assert states[:, 1] @ weight + intercept == pytest.approx(expected.decision_function(states[:, 1]), abs=0.01)


def test_a_fit_uses_one_thread_and_gives_the_others_back(rows, monkeypatch):
    """With two threads, a fit of the default run took 30 times as long."""
    seen = []

    def fit(model, *data):
        seen.extend(library["num_threads"] for library in threadpool_info())
        return own_fit(model, *data)

    own_fit = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", fit)
    with threadpool_limits(2):
        fit_path(rows[0][:, 1], rows[1], (0.1,))
        assert {library["num_threads"] for library in threadpool_info()} == {2}
    assert set(seen) == {1}


def test_a_constant_number_has_no_weight(rows):
    states, labels, _ = rows
    states[:, 1, 3] = 4.0
    ((weight, intercept),) = fit_path(states[:, 1], labels, (0.1,))
    assert np.isfinite(weight).all()
    assert weight[3] == pytest.approx(0, abs=1e-12)
    assert np.isfinite(intercept)


def test_with_too_few_units_nothing_is_chosen(rows):
    states, labels, _ = rows
    fitted = fit_probe(states, LAYERS, labels, np.where(labels, 0, 1), 0)
    assert fitted.probe.layer == 2
    assert fitted.chosen["average_precision_cv"] is None
    assert np.isnan(fitted.out_of_fold).all()
    assert search(states, labels, np.where(labels, 0, 1), 0) == {}


def test_a_probe_is_read_as_it_was_written_and_scores_a_row_whatever_the_others(rows, tmp_path):
    states, labels, units = rows
    probe = fit_probe(states, LAYERS, labels, units, 0).probe
    write_probe(tmp_path, probe)
    again = read_probe(tmp_path, 20)
    whole = again.log_odds(states[:, 1])
    assert (whole == probe.log_odds(states[:, 1])).all()
    assert all(whole[row] == again.log_odds(states[row : row + 1, 1])[0] for row in range(40))


def test_out_of_fold_scores_have_seen_no_row_of_their_unit(rows):
    """The states tell the units apart, and labels are the units': a probe that had seen a unit would know its label."""
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(60), 4)
    labels = (np.arange(60) % 2 == 0)[units]
    states = np.repeat(rng.normal(0, 1, (60, 100)), 4, axis=0)[:, None].astype(np.float32)
    fitted = fit_probe(states, [1], labels, units, 0)
    assert average_precision_score(labels, fitted.out_of_fold) < 0.7
    assert average_precision_score(labels, fitted.probe.log_odds(states[:, 0])) > 0.9
    for kept, scored in grouped_folds(labels, units, 0):
        assert not set(units[kept]) & set(units[scored])
