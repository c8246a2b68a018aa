"""The figures that DVC lists."""

from stages.artifacts import read_json
from stages.evaluate.headline import headline
from tests.conftest import ROOT


def test_the_committed_headline_is_that_of_the_committed_figures():
    committed, figures = read_json(ROOT / "metrics/headline.json"), read_json(ROOT / "metrics/evaluate.json")
    found = headline(figures, committed["threshold"])
    assert found == committed
    assert found["average_precision"] - found["best_cheap_average_precision"] == found["ahead"]
    assert len(found) <= 15


def test_what_a_set_does_not_define_is_left_out():
    assert headline({"model": {"recall": 0.5, "tp": 3}}, 0.5) == {"recall": 0.5, "threshold": 0.5}
    written = {"model": {"f1": 0.5}, "probe": {"average_precision": 0.9}, "best_cheap": {"name": "probe"}}
    found = headline(written | {"ahead": {"model": {"f1": -0.1}}}, 0.5)
    assert found == {"f1": 0.5, "threshold": 0.5, "best_cheap": "probe", "best_cheap_average_precision": 0.9}
