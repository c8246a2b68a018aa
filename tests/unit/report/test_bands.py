"""The page's part on block, review and pass."""

from pathlib import Path

from stages.artifacts import read_json, write_json
from stages.report.bands import bands
from stages.report.page import page
from stages.report.read import read_run
from tests.unit.report.conftest import HOSTILE

PROMISED = {
    "passed_per_1000": 500.0,
    "reviews_per_1000": 50.0,
    "reviews_per_1000_high": 71.5,
    "blocked_per_1000": 450.0,
    "precision": 0.91,
    "precision_low": 0.87,
    "missed": 0.08,
    "missed_high": 0.12,
    "fraud_fraction": 0.5,
}
TEST = {
    "passed_per_1000": 480.0,
    "reviews_per_1000": 61.0,
    "blocked_per_1000": 459.0,
    "precision": 0.93,
    "missed": 0.07,
}
HARMLESS = {"passed_per_1000": 800.0, "reviews_per_1000": 100.0, "blocked_per_1000": 100.0, "fraud_fraction": 0.0}


def test_a_run_without_bands_has_no_such_part(make_run):
    run = make_run()
    assert bands(run) == ""
    assert "select.bands" not in page(run)


def test_what_is_promised_and_kept_stands_beside_each_other(make_run):
    make_run()
    select, evaluate = (read_json(Path(f"metrics/{name}.json")) for name in ("select", "evaluate"))
    write_json(Path("metrics/select.json"), select | {"bands": {"review": 0.3, "block": 0.6, "promised": PROMISED}})
    kept = {"test": {"bands": TEST | {"fraud_fraction": 0.5}}, HOSTILE: {"bands": HARMLESS}, "other": {"f1": 1.0}}
    write_json(Path("metrics/evaluate.json"), evaluate | {"kept": kept})
    found = bands(read_run())
    assert "from 0.600 on it is blocked" in found
    assert "promises 50.0 reviews per 1,000 texts (at most 71.5), and that 8.0\xa0% of the fraud passes" in found
    rows = found.split("<tr>")
    (precision,) = [row for row in rows if "blocked that is fraud" in row]
    assert [cell in precision for cell in ("91.0\xa0% [≥ 87.0\xa0%]", "93.0\xa0%", ">–<")] == [True] * 3
    assert "<img" not in found
    assert found in page(read_run())


def test_a_test_of_one_class_keeps_bands_and_no_precision(make_run):
    make_run()
    evaluate = read_json(Path("metrics/evaluate.json"))
    promised = {"precision": 0.9, "recall": 0.8, "fraud_fraction": 0.5}
    write_json(Path("metrics/evaluate.json"), evaluate | {"promised": promised, "kept": {"test": {"bands": HARMLESS}}})
    assert "Promised and kept" not in page(read_run())
