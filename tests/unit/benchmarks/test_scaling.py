"""Efficiency over numbers of processes, and loss curves: what is compared, and when it may not be."""

import pytest

from benchmarks.loss_curves import WINDOW, compare_curves
from benchmarks.scaling import with_efficiency
from stages.errors import UserError


def block(processes: int, rate: float, compared: float) -> dict:
    rates = {"evaluate": {"samples_per_second": rate, "compared": compared}}
    return {"rates": rates, "processes": processes, "environment": {}}


def test_scaling_compares_only_what_computes_the_same():
    assert (
        with_efficiency({"2": block(2, 20.0, 1.5), "4": block(4, 30.0, 1.505)})["4"]["evaluate"]["efficiency"] == 0.75
    )
    with pytest.raises(UserError, match="evaluate: 4 process"):
        with_efficiency({"2": block(2, 20.0, 1.5), "4": block(4, 30.0, 1.515)})


def test_a_profiles_losses_are_compared_with_plains_of_the_same_seed():
    curves = {
        "plain 42": [1.0] * WINDOW + [2.0] * WINDOW,
        "plain 43": [1.0] * WINDOW + [2.5] * WINDOW,
        "speed 43": [1.25] * WINDOW + [2.5] * WINDOW,
    }
    assert compare_curves(curves) == {
        "speed 43": {"mean": 0.125, "largest": 0.25},
        "spread": {"mean": 0.25, "largest": 0.5},
    }
