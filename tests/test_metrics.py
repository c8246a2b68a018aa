import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from stages.metrics import choose_threshold, decision_metrics, score_metrics
from stages.params import Select

scored = st.lists(st.tuples(st.booleans(), st.sampled_from(np.linspace(0, 1, 21).tolist())), min_size=4, max_size=60)
both = scored.filter(lambda rows: len({label for label, _ in rows}) == 2)


def rule(threshold, min_precision=0.9):
    return Select(metric="loss", threshold=threshold, min_precision=min_precision)


@given(both, st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_metrics_are_scikit_learns(rows, threshold):
    y_true, y_score = map(np.array, zip(*rows, strict=True))
    ours = score_metrics(y_true, y_score, threshold)
    y_pred = y_score >= threshold
    assert ours["tp"] == np.sum(y_true & y_pred)
    assert ours["fp"] == np.sum(~y_true & y_pred)
    assert ours["fn"] == np.sum(y_true & ~y_pred)
    assert ours["tn"] == np.sum(~y_true & ~y_pred)
    assert ours["precision"] == sklearn_metrics.precision_score(y_true, y_pred, zero_division=0)
    assert ours["recall"] == sklearn_metrics.recall_score(y_true, y_pred)
    assert ours["f1"] == pytest.approx(sklearn_metrics.f1_score(y_true, y_pred))
    assert ours["average_precision"] == sklearn_metrics.average_precision_score(y_true, y_score)
    assert ours["roc_auc"] == sklearn_metrics.roc_auc_score(y_true, y_score)


@given(both)
@settings(max_examples=200, deadline=None)
def test_no_other_threshold_has_a_higher_f1(rows):
    y_true, y_score = map(np.array, zip(*rows, strict=True))
    chosen = decision_metrics(y_true, y_score >= choose_threshold(y_true, y_score, rule("max_f1")))["f1"]
    others = [decision_metrics(y_true, y_score >= t)["f1"] for t in [*y_score, 2.0]]
    assert chosen == pytest.approx(max(others))


@given(both, st.sampled_from([0.5, 0.75, 0.9]))
@settings(max_examples=200, deadline=None)
def test_no_other_threshold_of_that_precision_has_a_higher_recall(rows, least):
    y_true, y_score = map(np.array, zip(*rows, strict=True))
    possible = [decision_metrics(y_true, y_score >= t) for t in y_score]
    possible = [m["recall"] for m in possible if m["precision"] >= least]
    if not possible:
        with pytest.raises(ValueError, match=f"no threshold reaches select.min_precision {least}"):
            choose_threshold(y_true, y_score, rule("precision_at_least", least))
        return
    chosen = decision_metrics(y_true, y_score >= choose_threshold(y_true, y_score, rule("precision_at_least", least)))
    assert chosen["precision"] >= least
    assert chosen["recall"] == max(possible)


def test_the_fixed_threshold_is_one_half():
    assert choose_threshold([True, False], [0.9, 0.8], rule("fixed")) == 0.5


def test_no_rows_have_no_metrics():
    assert decision_metrics([], [])["f1"] == 0
