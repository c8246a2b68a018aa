"""Reads the selected data set, sets bad rows aside, splits it, and says how far its figures can be trusted: what leaks
from train, which single feature gives the label away, what a linear baseline reaches.

python -m stages.prepare
"""

import dataclasses
from collections import Counter
from pathlib import Path

from stages import params
from stages.artifacts import write_csv, write_json
from stages.command import run
from stages.data.jsonl import DataError
from stages.data.speakers import remove_speakers
from stages.metrics import BEST_F1, calibrated, choose_threshold, score_metrics
from stages.params import Params, Prepare
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
from stages.prepare.leaks import COLUMNS, find_leaks
from stages.prepare.read import Rows, limit_rejected, read_rows, together, write_rejected
from stages.prepare.shortcuts import Shortcut, find_shortcuts
from stages.prepare.split import (
    balance,
    drop_conflicting,
    drop_train_duplicates,
    limit_units,
    require_both_classes,
    split_pool,
)
from stages.text.example import Example, write_examples


def main() -> None:
    chosen = params.load()
    prepare = chosen.prepare
    read = read_all(chosen)
    raw = together(read.values())
    write_rejected(PROCESSED / "rejected.jsonl", raw.rejected)
    limit_rejected(raw, prepare.max_rejected_fraction)

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
    if prepare.balance:
        rows_before = sum(map(len, sets.values()))
        sets = {name: balance(rows, prepare.seed) if name in prepare.balance else rows for name, rows in sets.items()}
        dropped["balance"] = rows_before - sum(map(len, sets.values()))
    require_both_classes(sets)
    shortcuts = find_shortcuts(sets["train"], sets["valid"])
    before = find_shortcuts(*([as_read.get(row, row) for row in sets[name]] for name in ("train", "valid")))
    sets, leaks = find_leaks(sets | further, prepare)
    baseline, tuned = fit_baseline(sets["train"], prepare.seed)  # on all of train, whatever the model is given of it
    if prepare.max_rows_per_unit is not None:
        rows_before = len(sets["train"])
        sets["train"] = limit_units(sets["train"], prepare.max_rows_per_unit, prepare.seed)
        dropped["max_rows_per_unit"] = rows_before - len(sets["train"])
        require_both_classes({"train": sets["train"]})

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
        "rejected": len(raw.rejected),
        **({"left_out": raw.left_out} if raw.left_out else {}),
        "dropped": dropped,
        "speakers_removed": chosen.removes_speakers,
        **nested(describe(sets, BASE_MODEL / "tokenizer.json", chosen.prompt_section.max_length)),
        "leakage": count_leaks(leakage) | nested(leakage),
        "shortcuts": describe_shortcuts(shortcuts, labels),
        "shortcuts_as_read": describe_shortcuts(before, labels),
        "baseline": {**tuned, **score_metrics(labels, on_valid, choose_threshold(labels, on_valid, BEST_F1))},
    }
    write_json(METRICS / "data.json", report)
    report_lengths(report, chosen.prompt_section.max_length)
    tell(report, raw, prepare)


def read_all(chosen: Params) -> dict[str, Rows]:
    """The raw rows: of pool, or of train, valid and test, and of each further set."""
    dataset = chosen.dataset
    splits = {} if dataset.pools or dataset.dialogues else {n: getattr(dataset, n) for n in ("train", "valid", "test")}
    single = splits | {f"further {name}": path for name, path in chosen.evaluate.further_sets.items()}
    names = source_names([*dataset.pools, *single.values()])
    read = {}
    if dataset.dialogues:
        read["pool"] = read_dialogues(Path(dataset.dialogues), chosen.prepare)
    elif dataset.pools:
        require_different(dataset.pools)
        read["pool"] = together(read_rows(Path(path), names[path]) for path in dataset.pools)
    return read | {name: read_rows(Path(path), names[path]) for name, path in single.items()}


def source_names(paths: list[str]) -> dict[str, str]:
    """What stands for each file in the source of its rows: its name; where two files have that, its path below data/raw
    or data/sample; where two have that, its whole path."""
    ways = (lambda file: file.name, lambda file: Path(*file.parts[2:]).as_posix(), Path.as_posix)
    counts = [Counter(map(way, set(map(Path, paths)))) for way in ways]
    names = {}
    for path in paths:
        tried = [(way(Path(path)), count) for way, count in zip(ways, counts, strict=True)]
        names[path] = next(name for name, count in tried if count[name] == 1)
    return names


def require_different(paths: list[str]) -> None:
    """Raises DataError where a pool lists a file twice, under one name or two."""
    found: dict[Path, str] = {}
    for path in paths:
        file = Path(path).resolve()
        if file in found:
            raise DataError(f"the pool lists {path} and {found[file]}, which are one file: its rows would count twice")
        found[file] = path


def without_speakers(example: Example) -> Example:
    return dataclasses.replace(example, input=remove_speakers(example.input))


def report_lengths(report: dict, max_length: int) -> None:
    """Prints which sets hold texts that no prompt has room for."""
    for name, part in ({name: report[name] for name in ("train", "valid", "test")} | report["further"]).items():
        over = part["tokens"]["over_max_length"]
        if over:
            share = f"{over} of {part['rows']} texts of {name} ({over / part['rows']:.1%})"
            print(
                f"prepare: WARNING: {share} have more tokens than prompt.max_length = {max_length}, even without the "
                "prompt, and will be cut: raise it, or choose what is cut by prompt.truncation_side"
            )


def report_rows(raw: Rows, max_fraction: float) -> None:
    """Prints which rows and files were set aside, and what may be wrong with the others."""
    print(f"prepare: {len(raw.rejected)} rows rejected, listed in {PROCESSED / 'rejected.jsonl'}")
    for file, count in Counter(row.file for row in raw.rejected).items():
        total = raw.used[file] + count
        if count > max_fraction * total:
            print(f"prepare: WARNING: {count} of {total} rows of {file} were rejected")
    for file, reason in raw.left_out.items():
        print(f"prepare: WARNING: {file} was left out: {reason}")
    for doubt in raw.doubts:
        print(f"prepare: WARNING: {doubt}")


def tell(report: dict, raw: Rows, prepare: Prepare) -> None:
    """Prints what a reader of any later figure has to know."""
    for name in ("train", "valid", "test"):
        print(f"prepare: {name} {report[name]['rows']} rows, {report[name]['fraud_fraction']:.1%} fraud")
    report_rows(raw, prepare.max_rejected_fraction)
    held_out = {name: (report[name], report["leakage"][name]) for name in ("valid", "test")}
    further = report["leakage"]["further"]
    held_out |= {name: (report["further"][name], leakage) for name, leakage in further.items()}
    for name, (described, leakage) in held_out.items():
        leaking = described["rows"] - leakage["clean"]
        if leaking:
            counts = ", ".join(f"{kind} {rows}" for kind, rows in leakage.items() if rows and kind != "clean")
            print(f"prepare: WARNING: {leaking} rows of {name} leak ({counts}), listed in {PROCESSED / 'leaks.csv'}")
    first = report["shortcuts"].get("first")  # no feature tells texts apart where all are alike
    if first and first["of_the_way"] >= prepare.shortcut_warning:
        always = report["shortcuts"]["always_fraud_f1"]
        print(
            f"prepare: WARNING: {first['feature']!r} {first['fraud_if']}, and nothing else, gives F1 {first['f1']:.3f} "
            f"on valid (always fraud: {always:.3f}): a model's score shows little beyond it"
        )
    print(f"prepare: TF-IDF baseline on valid: F1 {report['baseline']['f1']:.3f}")


if __name__ == "__main__":
    run(main, options=False)
