"""Tables and plots."""

import numpy as np
from scipy.special import expit
from sklearn.metrics import precision_recall_curve

from stages.artifacts import read_csv
from stages.evaluate.compare import slices
from stages.evaluate.intervals import weighted_metrics
from stages.evaluate.predictors import Predictions
from stages.evaluate.tables import write_plots, write_predictions
from stages.metrics import metrics_at_fraction
from stages.text.example import Example
from tests.unit.evaluate.systems import fixed


def test_a_low_temperature_keeps_the_order_of_scores(tmp_path):
    log_odds = np.array([50.0, 60.0, 70.0, 80.0])
    y_true = np.array([False, True, False, True])
    system = fixed(log_odds, 0.5, 5)
    assert len(set(system.y_score)) == 1  # expit is 1.0 for all
    assert system.metrics(y_true)["roc_auc"] == 0.75
    assert weighted_metrics(system, y_true, np.ones((1, 4)))["roc_auc"][0] == 0.75
    precision = system.metrics(y_true)["average_precision"]
    assert metrics_at_fraction(y_true, system.y_score, 0.5, None, log_odds)["average_precision"] == precision
    rows = [Example("a", bool(label), category="c") for label in y_true]
    sliced = [row for row in slices("test", rows, {"model": system}) if row["by"] == "category"]
    assert [(row["roc_auc"], row["average_precision"]) for row in sliced] == [(0.75, precision)]
    write_plots(tmp_path, rows, {"model": system})
    assert len(read_csv(tmp_path / "precision_recall/model.csv")) == len(precision_recall_curve(y_true, log_odds)[0])


def test_the_table_of_predictions_holds_scores_before_and_after_calibration(tmp_path):
    rows = [Example("a", True, source="f:1"), Example("b", False, source="f:2")]
    written = Predictions(np.array([1.0, np.nan]), 0.5)
    systems = {"model": fixed(np.array([1.5, -0.1]), 0.5, 1 / 2), "zero_shot": written}
    write_predictions(tmp_path / "test.csv", rows, systems)
    one, other = read_csv(tmp_path / "test.csv")
    assert (one["source"], one["y_true"], one["model_log_odds"], one["model_pred"]) == ("f:1", "1", "1.5", "1")
    assert float(one["model_score"]) == expit(0.75)
    assert (other["model_log_odds"], other["zero_shot_log_odds"], other["zero_shot_score"]) == ("-0.1", "", "")
