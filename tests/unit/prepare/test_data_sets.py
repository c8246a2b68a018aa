"""The sample that the project ships, and third-party sets where they are at hand."""

import re
from collections import Counter

import pytest

from stages import params
from stages.metrics import BEST_F1, choose_threshold, decision_metrics
from stages.prepare.baseline import fit_baseline, log_odds
from stages.prepare.describe import describe_leaks
from stages.prepare.leaks import find_leaks, find_similar_rows, unit_numbers
from stages.prepare.read import read_labelled
from stages.prepare.shortcuts import find_shortcuts
from stages.prepare.split import split_pool
from tests.conftest import ROOT
from tests.unit.prepare.tables import PREPARE

SAMPLE = {name: read_labelled(ROOT / f"data/sample/{name}.jsonl") for name in ("pool", "pool-2")}
EXAMPLES = [example for rows in SAMPLE.values() for example in rows.examples]


class TestSample:
    """The data set that the project ships holds what its README says."""

    def test_every_row_is_good_and_no_two_are_alike(self):
        assert not any(rows.rejected for rows in SAMPLE.values())
        assert {name: rows.total for name, rows in SAMPLE.items()} == {"pool": 640, "pool-2": 1584}
        assert len({re.sub(r"\W", "", e.input) for e in EXAMPLES}) == len(EXAMPLES)

    def test_classes_cases_kinds_and_lengths(self):
        fraud = [e for e in EXAMPLES if e.label]
        assert len(fraud) == len(EXAMPLES) / 2
        assert len({e.group for e in EXAMPLES}) == 1112
        assert len({e.category for e in fraud}) == 32
        assert {e.category for e in EXAMPLES if not e.label} == {"对照", "日常"}
        assert all(40 <= len(e.input) <= 200 for e in SAMPLE["pool"].examples)
        assert all(25 <= len(e.input) <= 1487 for e in EXAMPLES)
        assert sum(len(e.input) >= 500 for e in EXAMPLES) == 163
        assert not re.search(r"https?:|www\.|1[3-9]\d{9}|\d{16,19}", "\n".join(e.input for e in EXAMPLES))

    def test_its_cases_are_its_units_so_none_is_large(self):
        units = unit_numbers(EXAMPLES, find_similar_rows(EXAMPLES, PREPARE))
        assert len(set(units)) == 1112
        assert max(Counter(units).values()) == 3

    def test_the_harmless_texts_are_of_eight_kinds_and_unlike_the_pool(self):
        harmless = read_labelled(ROOT / "data/sample/harmless.jsonl").examples
        assert set(Counter(e.category for e in harmless).values()) == {42}
        assert len({e.category for e in harmless}) == 8
        assert not any(e.label for e in harmless)
        assert all(15 <= len(e.input) <= 295 for e in harmless)
        assert not re.search(r"https?:|www\.|\d{7,}", "\n".join(e.input for e in harmless))
        units = unit_numbers(together := [*EXAMPLES, *harmless], find_similar_rows(together, PREPARE))
        assert len(set(units)) == 1112 + len(harmless)

    def test_key_words_alone_do_not_separate_the_first_file(self):
        splits = split_pool(SAMPLE["pool"].examples, params.load(ROOT / "params.yaml").prepare)
        splits, _ = find_leaks(splits, PREPARE)
        baseline = fit_baseline(splits["train"], 0).baseline
        on_valid, on_test = (log_odds(baseline, splits[name]) for name in ("valid", "test"))
        threshold = choose_threshold([e.label for e in splits["valid"]], on_valid, BEST_F1)
        assert 0.60 < decision_metrics([e.label for e in splits["test"]], on_test >= threshold)["f1"] < 0.9


REAL = ROOT.parent / "shared/data/anti_fraud_sft"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="third-party data sets are not part of the project")
def test_the_real_splits_their_leaks_and_their_shortcut():
    read = {
        name: read_labelled(REAL / f"{file}.jsonl")
        for name, file in (("train", "pool"), ("valid", "eval0819"), ("test", "test0819"))
    }
    assert {name: rows.total for name, rows in read.items()} == {"train": 29119, "valid": 2348, "test": 2349}
    assert all("not blank" in row.reason for rows in read.values() for row in rows.rejected)
    splits = {name: rows.examples for name, rows in read.items()}
    leakage = describe_leaks(*find_leaks(splits, PREPARE))
    assert leakage["valid"]["verbatim"] >= 1948
    assert leakage["valid"]["contained"] >= 1731
    (first, *_) = find_shortcuts(splits["train"], splits["valid"])
    assert "发言人" in first.feature
    assert first.f1 == pytest.approx(0.914, abs=0.01)
