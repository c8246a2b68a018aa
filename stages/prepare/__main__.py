"""Reads the selected data set, rejects bad rows, splits it, and reports how far its figures can be trusted.

The report covers what leaks from train, which single feature gives the label away, and what a cheap baseline reaches.

python -m stages.prepare
python -m stages.prepare --check FILE    (looks at a file, and prints the entry of `datasets` that reads it)
python -m stages.prepare --suspicious    (lists labels that may be wrong, once the stage has run)
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from stages import params
from stages.artifacts import write_csv, write_json
from stages.classifier.baseline import write_baseline
from stages.command import run
from stages.log_odds import write_log_odds
from stages.paths import BASE_MODEL, BASELINE, FOLD_SPLITS, FURTHER, METRICS, PLOTS, PROCESSED
from stages.prepare.baseline import baseline_metrics, fit_baseline, log_odds
from stages.prepare.check import check
from stages.prepare.describe import (
    SPLITS,
    count_leaks,
    describe,
    describe_inputs,
    describe_leaks,
    describe_shortcuts,
    leak_rows,
    length_rows,
    nest_further,
)
from stages.prepare.leaks import COLUMNS, Leak, Sets, find_leaks
from stages.prepare.messages import print_summary
from stages.prepare.out_of_fold import in_order, write_out_of_fold
from stages.prepare.read import limit_rejected, together, write_rejected
from stages.prepare.shortcuts import Shortcut, find_shortcuts
from stages.prepare.sources import read_sources, texts_as_read, texts_as_trained
from stages.prepare.split import drop_rows, limit_train, split_sources
from stages.prepare.suspicious import list_suspicious
from stages.prepare.train_rows import draw_train
from stages.text.example import write_examples


def main() -> None:
    chosen = params.load()
    own, further = read_sources(chosen)
    raw = together([*own.values(), *further.values()])
    write_rejected(PROCESSED / "rejected.jsonl", raw.rejected)
    for part in (own, further):  # each by itself: good rows of the other would hide bad ones
        limit_rejected(together(part.values()), chosen.prepare.max_rejected_fraction)

    texts, further_texts = (texts_as_trained(part, chosen.removes_speakers) for part in (own, further))
    given, from_manifest = split_sources(texts, chosen, together(own.values()).times)
    whole, dropped = drop_rows(given, chosen)
    splits, not_drawn = draw_train(whole, chosen.prepare)  # all systems learn from the drawn rows alone
    shortcuts = find_shortcuts(splits["train"], splits["valid"])
    shortcuts_as_read = find_shortcuts(*(texts_as_read(own, splits[name]) for name in ("train", "valid")))
    marked, leaks = find_leaks(splits | further_texts, chosen.prepare)
    fitted = fit_baseline(marked["train"], chosen.prepare.seed)  # on all of train, also if the model gets less
    sets, not_trained_on = limit_train(marked, chosen.prepare)

    write_sets(sets, leaks, shortcuts)
    no_folds = write_out_of_fold(FOLD_SPLITS, BASELINE / "folds.csv", in_order(texts, marked), chosen.prepare)
    out_of_fold = dict(zip(map(id, marked["train"]), fitted.out_of_fold, strict=True))
    scores = {name: log_odds(fitted.baseline, rows) for name, rows in sets.items() if name != "train"}
    scores["train"] = np.array([out_of_fold[id(example)] for example in sets["train"]])
    for name, values in scores.items():
        write_log_odds(BASELINE / f"{name}.csv", values)
    write_baseline(BASELINE, fitted.baseline)
    leakage = describe_leaks(sets, leaks)
    summary = describe_inputs(raw, chosen) | {"dropped": dropped | not_drawn | not_trained_on} | from_manifest
    summary |= nest_further(describe(sets, BASE_MODEL / "tokenizer.json", chosen.prompt_section.max_length))
    summary["leakage"] = count_leaks(leakage) | nest_further(leakage)
    summary["shortcuts"] = describe_shortcuts(shortcuts, sets["valid"])
    summary["shortcuts_as_read"] = describe_shortcuts(shortcuts_as_read, sets["valid"])
    summary["baseline"] = fitted.chosen | baseline_metrics(fitted.baseline, sets["valid"])
    write_json(METRICS / "data.json", summary)
    print_summary(summary, sets, raw, chosen)
    if no_folds:
        print(f"prepare: no out-of-fold scores of the baseline: {no_folds}")


def command() -> None:
    """Runs the stage, looks at one file, or at the labels."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m stages.prepare", description=__doc__, formatter_class=form)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--check", type=Path, metavar="FILE", help="print what is wrong with a file, and its entry")
    instead.add_argument(
        "--suspicious", action="store_true", help="list labels that may be wrong, in runs/suspicious.csv"
    )
    arguments = parser.parse_args()
    if arguments.check is not None:
        check(arguments.check, params.load().prepare.max_rejected_fraction)
    elif arguments.suspicious:
        list_suspicious(params.load().prepare)
    else:
        main()


def write_sets(sets: Sets, leaks: list[Leak], shortcuts: list[Shortcut]) -> None:
    """Writes the rows of each set, their leaks, and the tables behind the plots."""
    for name, rows in sets.items():
        write_examples((PROCESSED if name in SPLITS else FURTHER) / f"{name}.jsonl", rows)
    write_csv(PROCESSED / "leaks.csv", map(vars, leaks), COLUMNS)
    write_csv(PLOTS / "shortcuts.csv", map(vars, shortcuts), [field.name for field in dataclasses.fields(Shortcut)])
    write_csv(PLOTS / "leaks.csv", leak_rows(describe_leaks(sets, leaks)), ["leak", "rows"])
    write_csv(PLOTS / "lengths.csv", length_rows(sets), ["characters", "fraud", "not fraud"])


if __name__ == "__main__":
    run(command)
