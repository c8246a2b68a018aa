"""Scores that other stages wrote: a file that does not fit its set is refused, and named."""

import numpy as np
import pytest

from stages.errors import UserError
from stages.evaluate.choices import Valid
from stages.evaluate.predictors import stored_predictor
from stages.log_odds import read_log_odds, write_log_odds
from stages.metrics import ThresholdRule
from stages.text.example import Example

ROWS = [Example("a", False), Example("b", True), Example("c", True)]


@pytest.fixture
def folder(tmp_path):
    for name in ("valid", "test"):
        write_log_odds(tmp_path / f"{name}.csv", [-1.0, 0.1 + 0.2, 2.0])
    return tmp_path


def predictor(folder):
    return stored_predictor(folder, Valid.of(ROWS, ThresholdRule("max_f1"), "platt", 10))


def test_scores_keep_all_digits(folder):
    assert read_log_odds(folder / "test.csv", 3).tolist() == [-1.0, 0.1 + 0.2, 2.0]
    assert predictor(folder)("test", ROWS).log_odds.tolist() == [-1.0, 0.1 + 0.2, 2.0]


@pytest.mark.parametrize("name", ["valid", "test"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"\.csv can't be read: FileNotFoundError: .*: run `dvc repro`"),
        ("score\n1\n2\n3\n", r"\.csv can't be read: KeyError: 'log_odds'"),
        ("log_odds\n1\nabc\n3\n", r"\.csv can't be read: ValueError: .*'abc'"),
        ("log_odds\n1\n2\n", r"\.csv has 2 rows; expected 3, as its set has: run `dvc repro`"),
        ("log_odds\n", r"\.csv has 0 rows; expected 3"),
        ("log_odds\n1\nnan\n3\n", r"\.csv:3: .* is nan; expected a finite number"),
        ("log_odds\n1\n2\ninf\n", r"\.csv:4: .* is inf; expected a finite number"),
    ],
)
def test_a_file_that_does_not_fit_its_set_is_refused(folder, name, content, message):
    path = folder / f"{name}.csv"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=name + message):
        predictor(folder)("test", ROWS)


def test_numpy_arrays_are_written_too(tmp_path):
    write_log_odds(tmp_path / "a.csv", np.array([0.5]))
    assert (tmp_path / "a.csv").read_text() == "log_odds\n0.5\n"
