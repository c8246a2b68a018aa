"""How rates of several processes compare."""

import pytest

from benchmarks.scaling import report
from stages.errors import UserError


def test_scaling_compares_only_what_computes_the_same():
    def block(processes, rate, compared):
        return {"rates": {"evaluate": {"samples_per_second": rate, "compared": compared}}, "processes": processes,
                "environment": {}}  # fmt: skip

    assert report({"2": block(2, 20.0, 1.5), "4": block(4, 30.0, 1.505)})["4"]["evaluate"]["efficiency"] == 0.75
    with pytest.raises(UserError, match="evaluate: 4 process"):
        report({"2": block(2, 20.0, 1.5), "4": block(4, 30.0, 1.515)})
