"""The evaluation whose checkpoint is selected."""

import pytest

from stages.select.checkpoint import chosen_row

COLUMNS = ("step", "loss", "average_precision", "f1")
HISTORY = [
    dict(zip(COLUMNS, row.split(), strict=True))
    for row in ("10 0.9 0.50 0.7", "20 0.10 0.60 0.9", "30 0.1 0.95 0.8", "40 0.3 0.95 0.9")
]


@pytest.mark.parametrize(("metric", "step"), [("loss", "20"), ("average_precision", "30"), ("f1", "20")])
def test_the_best_value_on_valid_wins_and_the_earliest_of_equals(metric, step):
    assert chosen_row(HISTORY, "best", metric)["step"] == step


def test_the_last_evaluation_is_taken_without_a_choice():
    assert chosen_row(HISTORY, "last", "f1")["step"] == "40"
