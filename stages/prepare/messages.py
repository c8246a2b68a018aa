"""What the stage prints: sizes, and warnings that a reader of any later figure has to know."""

from collections import Counter
from typing import Any

from stages.params import Params
from stages.paths import PROCESSED
from stages.prepare.describe import SPLITS, large_units
from stages.prepare.leaks import Sets
from stages.prepare.read import Rows

FEWEST_EFFECTIVE_UNITS = 20  # an interval over fewer says little
FEWEST_ROWS = 50
FEWEST_OF_A_CLASS = 10


def print_summary(summary: dict[str, Any], sets: Sets, raw: Rows, chosen: Params) -> None:
    """Prints the content of metrics/data.json in sentences, with warnings.

    Args:
        summary: the content of metrics/data.json.
        sets: rows by set.
        raw: the rows of the files.
        chosen: all params.
    """
    warn_of_long_texts(summary, chosen.prompt_section.max_length)
    for name in SPLITS:
        print(f"prepare: {name} {summary[name]['rows']} rows, {summary[name]['fraud_fraction']:.1%} fraud")
    print_manifest(summary)
    print_time(summary)
    warn_of_units(summary, sets)
    print_rejected(raw, chosen.prepare.max_rejected_fraction)
    warn_of_leaks(summary)
    warn_of_shortcut(summary["shortcuts"], chosen.prepare.shortcut_warning)
    print_baseline(summary["baseline"])


def print_baseline(chosen: dict[str, Any]) -> None:
    """Prints which baseline was chosen, and whether a wider grid might hold a better one."""
    name = f"{chosen['family']} of {chosen['ngram_min']}- to {chosen['ngram_max']}-grams"
    found = chosen["average_precision_cv"]
    if found is None:
        print(f"prepare: TF-IDF baseline: {name}, not chosen: train has too few units for folds")
    else:
        print(f"prepare: TF-IDF baseline: {name}, average precision {found:.3f} in cross-validation on train")
        if chosen["at_edge_of_grid"]:
            key = "alpha" if chosen["C"] is None else "C"
            print(
                f"prepare: the baseline's {key} {chosen[key]:g} is at the edge of its grid: a wider one may do better"
            )
    print(f"prepare: TF-IDF baseline on valid: F1 {chosen['f1']:.3f}")


def warn_of_long_texts(summary: dict[str, Any], max_length: int) -> None:
    """Prints which sets hold texts of more than `max_length` tokens."""
    for name, part in ({name: summary[name] for name in SPLITS} | summary["further"]).items():
        over = part["tokens"]["over_max_length"]
        if over:
            share = f"{over} of {part['rows']} texts of {name} ({over / part['rows']:.1%})"
            print(
                f"prepare: WARNING: {share} have more tokens than prompt.max_length = {max_length}, even without the "
                "prompt, and will be cut: raise it, or choose what is cut by prompt.truncation_side"
            )


def print_manifest(summary: dict[str, Any]) -> None:
    """Prints how many rows the manifest knows, and warns of rows that left their split."""
    counts = summary.get("manifest")
    if counts is None:
        return
    print(f"prepare: manifest: {counts['known']} rows known, {counts['new']} new, {counts['gone']} gone")
    if counts["changed_split"]:
        print(
            f"prepare: WARNING: {counts['changed_split']} rows changed their split, because new rows join them with "
            "rows of another one: all went to the first of train, valid and test that held one of them"
        )


def print_time(summary: dict[str, Any]) -> None:
    """Prints the boundaries of a split by time."""
    found = summary.get("time")
    if found is None:
        return
    print(f"prepare: by time: train until {found['train_until']}, valid until {found['valid_until']}, then test")
    if found["held_out_rows_before"]:
        print(
            f"prepare: {found['held_out_rows_before']} rows of valid and test are from before the end of train: their "
            "cases, or similar texts, go on after it, and units stay whole"
        )


def warn_of_units(summary: dict[str, Any], sets: Sets) -> None:
    """Prints units that hold much of the data, and splits that are too small to say much."""
    for source, rows, share in large_units(sets):
        print(
            f"prepare: WARNING: {rows} rows ({share:.1%}) are one unit, joined by groups or similar texts; its first "
            f"row is {source}: figures depend on which split it is in. Texts that many groups share, such as a "
            "disclaimer, join them: remove these, or give finer groups"
        )
    for name in SPLITS:
        part = summary[name]
        rarer = min(part["fraud"], part["rows"] - part["fraud"])
        if part["effective_units"] < FEWEST_EFFECTIVE_UNITS:
            print(
                f"prepare: WARNING: {name} has {part['rows']} rows in {part['units']} units, which say as much as "
                f"{part['effective_units']:.1f} of equal size; expected {FEWEST_EFFECTIVE_UNITS} or more: its figures "
                "are uncertain"
            )
        if part["rows"] < FEWEST_ROWS or rarer < FEWEST_OF_A_CLASS:
            print(
                f"prepare: WARNING: {name} has {part['rows']} rows, {rarer} of the rarer class; expected {FEWEST_ROWS} "
                f"and {FEWEST_OF_A_CLASS} or more: its figures are uncertain"
            )


def print_rejected(raw: Rows, max_fraction: float) -> None:
    """Prints how many rows were rejected, which files were left out, and what may be wrong with the other rows."""
    print(f"prepare: {len(raw.rejected)} rows rejected, listed in {PROCESSED / 'rejected.jsonl'}")
    for file, count in Counter(row.file for row in raw.rejected).items():
        total = raw.used[file] + count
        if count > max_fraction * total:
            print(f"prepare: WARNING: {count} of {total} rows of {file} were rejected")
    for file, reason in raw.left_out.items():
        print(f"prepare: WARNING: {file} was left out: {reason}")
    for doubt in raw.doubts:
        print(f"prepare: WARNING: {doubt}")


def warn_of_leaks(summary: dict[str, Any]) -> None:
    """Prints how many rows of each held-out set leak."""
    leakage = summary["leakage"]
    held_out = {name: (summary[name], leakage[name]) for name in ("valid", "test")}
    held_out |= {name: (summary["further"][name], counts) for name, counts in leakage["further"].items()}
    for name, (described, counts) in held_out.items():
        leaking = described["rows"] - counts["clean"]
        if leaking:
            kinds = ", ".join(f"{kind} {rows}" for kind, rows in counts.items() if rows and kind != "clean")
            print(f"prepare: WARNING: {leaking} rows of {name} leak ({kinds}), listed in {PROCESSED / 'leaks.csv'}")


def warn_of_shortcut(shortcuts: dict[str, Any], limit: float) -> None:
    """Prints the strongest single feature, if it goes `limit` or more of the way to a perfect F1."""
    first = shortcuts.get("first")  # missing if no feature tells the texts apart
    if first and first["of_the_way"] >= limit:
        print(
            f"prepare: WARNING: {first['feature']!r} {first['fraud_if']}, and nothing else, gives F1 {first['f1']:.3f} "
            f"on valid (always fraud: {shortcuts['always_fraud_f1']:.3f}): a model's score shows little beyond it"
        )
