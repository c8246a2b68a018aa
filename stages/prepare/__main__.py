"""Reads the selected data set, sets bad rows aside, splits it, and says how far its figures can be trusted: what leaks
from train, which single feature gives the label away, what a linear baseline reaches.

python -m stages.prepare
"""

import dataclasses
from pathlib import Path

from stages import params, run
from stages.metrics import BEST_F1, calibrated, choose_threshold, score_metrics
from stages.params import Params
from stages.paths import BASE_MODEL, BASELINE, FURTHER, METRICS, PLOTS, PROCESSED
from stages.prepare.baseline import fit_baseline, log_odds, write_log_odds
from stages.prepare.describe import (
    count_leaks,
    describe,
    describe_leaks,
    describe_shortcuts,
    leak_rows,
    length_rows,
    nested,
)
from stages.prepare.dialogues import read_dialogues
from stages.prepare.leaks import COLUMNS, KINDS, find_leaks
from stages.prepare.read import Rows, limit_rejected, read_rows, write_rejected
from stages.prepare.shortcuts import Shortcut, find_shortcuts
from stages.prepare.split import (
    balance,
    drop_conflicting,
    drop_train_duplicates,
    limit_units,
    require_both_classes,
    split_pool,
)
from stages.report import write_csv, write_json
from stages.text.example import Example, write_examples
from stages.text.speakers import remove_speakers


def main() -> None:
    chosen = params.load()
    prepare = chosen.prepare
    read = read_all(chosen)
    rejected = [row for rows in read.values() for row in rows.rejected]
    write_rejected(PROCESSED / "rejected.jsonl", rejected)
    for rows in read.values():
        limit_rejected(rows.rejected, rows.total, 1)  # a file of which nothing is left
    limit_rejected(rejected, sum(rows.total for rows in read.values()), prepare.max_rejected_fraction)

    sets = {name: rows.examples for name, rows in read.items()}
    as_read: dict[Example, Example] = {}
    if chosen.removes_speakers:
        as_read = {without_speakers(row): row for rows in sets.values() for row in rows}
        sets = {name: list(map(without_speakers, rows)) for name, rows in sets.items()}
    further = {name: sets.pop(f"further {name}") for name in chosen.evaluate.further_sets}
    if "pool" in sets:
        sets = split_pool(sets["pool"], prepare)
    dropped = {"duplicates_of_held_out": 0, "conflicting": 0}
    if chosen.dataset.drop_train_duplicates:
        sets, dropped["duplicates_of_held_out"] = drop_train_duplicates(sets, prepare)
    if {"keep": False, "drop": True}[prepare.conflicting_labels]:
        sets, dropped["conflicting"] = drop_conflicting(sets, prepare)
    sets = {name: balance(rows, prepare.seed) if name in prepare.balance else rows for name, rows in sets.items()}
    require_both_classes(sets)
    shortcuts = find_shortcuts(sets["train"], sets["valid"])
    before = find_shortcuts(*([as_read.get(row, row) for row in sets[name]] for name in ("train", "valid")))
    sets, leaks = find_leaks(sets | further, prepare)
    baseline, tuned = fit_baseline(sets["train"], prepare.seed)  # on all of train, whatever the model is given of it
    if prepare.max_rows_per_unit is not None:
        sets["train"] = limit_units(sets["train"], prepare.max_rows_per_unit, prepare.seed)

    for name, rows in sets.items():
        write_examples((FURTHER if name in further else PROCESSED) / f"{name}.jsonl", rows)
    write_csv(PROCESSED / "leaks.csv", map(vars, leaks), COLUMNS)
    write_csv(PLOTS / "shortcuts.csv", map(vars, shortcuts), [field.name for field in dataclasses.fields(Shortcut)])
    leakage = describe_leaks(sets, leaks)
    write_csv(PLOTS / "leaks.csv", leak_rows(leakage), ["leak", "rows"])
    write_csv(PLOTS / "lengths.csv", length_rows(sets), ["characters", "fraud", "not fraud"])
    for name in set(sets) - {"train"}:
        write_log_odds(BASELINE / f"{name}.csv", log_odds(baseline, sets[name]))

    labels = [example.label for example in sets["valid"]]
    on_valid = calibrated(log_odds(baseline, sets["valid"]), 1)
    report = {
        "dataset": chosen.dataset_name,
        "rejected": len(rejected),
        "dropped": dropped,
        "speakers_removed": chosen.removes_speakers,
        **nested(describe(sets, BASE_MODEL / "tokenizer.json")),
        "leakage": count_leaks(leakage) | nested(leakage),
        "shortcuts": describe_shortcuts(shortcuts, labels),
        "shortcuts_as_read": describe_shortcuts(before, labels),
        "baseline": {**tuned, **score_metrics(labels, on_valid, choose_threshold(labels, on_valid, BEST_F1))},
    }
    write_json(METRICS / "data.json", report)
    tell(report, prepare.shortcut_warning)


def read_all(chosen: Params) -> dict[str, Rows]:
    """The raw rows: of pool, or of train, valid and test, and of each further set."""
    dataset = chosen.dataset
    if dataset.dialogues:
        read = {"pool": read_dialogues(Path(dataset.dialogues), chosen.prepare)}
    elif dataset.pools:
        read = {"pool": Rows()}
        for path in map(Path, dataset.pools):
            rows = read_rows(path)
            read["pool"].examples.extend(rows.examples)
            read["pool"].rejected.extend(rows.rejected)
    else:
        read = {name: read_rows(Path(getattr(dataset, name))) for name in ("train", "valid", "test")}
    further = {f"further {name}": read_rows(Path(path)) for name, path in chosen.evaluate.further_sets.items()}
    return read | further


def without_speakers(example: Example) -> Example:
    return dataclasses.replace(example, input=remove_speakers(example.input))


def tell(report: dict, warning: float) -> None:
    """Prints what a reader of any later figure has to know."""
    for name in ("train", "valid", "test"):
        print(f"prepare: {name} {report[name]['rows']} rows, {report[name]['fraud_fraction']:.1%} fraud")
    print(f"prepare: {report['rejected']} rows rejected, listed in {PROCESSED / 'rejected.jsonl'}")
    for name in ("valid", "test"):
        leakage = report["leakage"][name]
        leaking = report[name]["rows"] - leakage["clean"]
        if leaking:
            counts = ", ".join(f"{kind} {leakage[kind]}" for kind in KINDS)
            print(f"prepare: WARNING: {leaking} rows of {name} leak ({counts}), listed in {PROCESSED / 'leaks.csv'}")
    first = report["shortcuts"]["first"]
    if first["of_the_way"] >= warning:
        always = report["shortcuts"]["always_fraud_f1"]
        print(
            f"prepare: WARNING: {first['feature']!r} {first['fraud_if']}, and nothing else, gives F1 {first['f1']:.3f} "
            f"on valid (always fraud: {always:.3f}): a model's score shows little beyond it"
        )
    print(f"prepare: TF-IDF baseline on valid: F1 {report['baseline']['f1']:.3f}")


if __name__ == "__main__":
    run(main)
