"""Draws take whole units."""

import numpy as np
import pytest

from stages.drift.draws import different, drawn_rows, first_rows, p_value

UNITS = np.array([5, 1, 5, 2, 2, 5, 9, 9])


def test_first_rows_are_of_whole_units_but_for_the_last():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = first_rows(UNITS, 4, rng)
        assert len(set(rows.tolist())) == 4
        parts = [unit for unit in set(UNITS[rows]) if (UNITS[rows] == unit).sum() < (unit == UNITS).sum()]
        assert len(parts) <= 1


def test_a_draw_has_the_rows_asked_for_in_whole_units():
    rng = np.random.default_rng(0)
    for rows in drawn_rows(UNITS, 40, 50, rng):
        assert len(rows) == 40
        counts = np.bincount(rows, minlength=len(UNITS))
        parts = [unit for unit in set(UNITS.tolist()) if len(set(counts[unit == UNITS].tolist())) > 1]
        assert len(parts) <= 1  # the last one may be cut


def test_units_are_drawn_alike_whatever_their_size():
    rows = np.concatenate(list(drawn_rows(UNITS, 400, 100, np.random.default_rng(0))))
    shares = np.array([(rows == row).mean() for row in range(len(UNITS))])
    assert shares == pytest.approx(1 / len(UNITS), abs=0.01)


def test_a_p_value_is_never_zero_and_counts_ties():
    assert p_value(3.0, np.array([1.0, 2.0, 2.5])) == 1 / 4
    assert p_value(2.0, np.array([1.0, 2.0, 2.5])) == 3 / 4


def test_equal_texts_count_once():
    assert different(["a", "b", "a", "c", "b"]).tolist() == [0, 1, 3]
