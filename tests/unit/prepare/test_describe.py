"""What metrics/data.json counts."""

from dataclasses import replace

from stages.prepare.describe import count_leaks, describe, describe_leaks, nest_further
from stages.prepare.leaks import find_leaks
from stages.prepare.split import drop_train_duplicates
from stages.text.example import Example
from tests.unit.prepare.tables import PREPARE


def test_texts_in_two_splits_are_counted_and_can_be_dropped_from_train(base_folder):
    given = {
        "train": [Example("a", True), Example("b", False), Example("c", True), Example("c", False)],
        "valid": [Example("a", True), Example("a", True), Example("x", False)],
        "test": [Example("b", True), Example("x", False)],
    }
    given = {name: [replace(row, source=f"{name}:{n}") for n, row in enumerate(rows)] for name, rows in given.items()}
    summary = describe(given, base_folder / "tokenizer.json", max_length=2)
    assert (summary["train"]["duplicates"], summary["train"]["conflicting_labels"]) == (1, 1)
    leakage = describe_leaks(*find_leaks(given, PREPARE))
    assert count_leaks(leakage)["verbatim"] == 3
    assert leakage["valid"] == {"verbatim": 2, "near": 0, "contained": 0, "case": 0, "clean": 1}
    assert leakage["test"]["verbatim_in_valid"] == 1
    clean, dropped = drop_train_duplicates(given, PREPARE)
    assert (dropped, [e.input for e in clean["train"]]) == (2, ["c", "c"])
    assert clean["test"] == given["test"]


def test_texts_that_will_be_cut_are_counted(base_folder):
    given = {"train": [Example("好" * 200, True), Example("好", False)]}
    for max_length, over in ((100, 1), (100_000, 0)):
        summary = describe(given, base_folder / "tokenizer.json", max_length)
        assert summary["train"]["tokens"]["over_max_length"] == over


def test_a_further_set_may_have_any_name():
    by_set = {"train": 1, "leakage": 2, "further": 3}
    assert nest_further(by_set) == {"train": 1, "further": {"leakage": 2, "further": 3}}
