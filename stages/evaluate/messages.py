"""What the stage prints of its figures."""

from collections.abc import Iterable
from typing import Any

from stages.classifier.shift import Shift
from stages.evaluate.systems import LADDER
from stages.text.example import Example

VERDICTS = ("model", "combined")  # systems with training, of which a sentence says whether it pays
ADVICE = (
    "Its figures above say what the threshold does here. To choose it for such texts, make 100 to 200 of them valid of "
    "a data set of your own, or set select.fraud_fraction if only their share of fraud differs"
)
COLUMNS = ("system", "average precision", "F1", "precision", "recall", "minus best cheap")


def warn_of_unused_categories(without_categories: list[str], sets: Iterable[list[Example]]) -> None:
    """Prints the names in evaluate.without_categories that no text has."""
    for category in set(without_categories) - {example.category for examples in sets for example in examples}:
        print(f"evaluate: WARNING: no text is of the category {category!r} in evaluate.without_categories")


def print_comparison(name: str, comparison: dict[str, Any], margin: float) -> None:
    """Prints the systems on a set as a ladder, and whether those with training win.

    A set of one class has no ladder, and a line for each system's decisions.

    Args:
        name: of the set.
        comparison: its block of metrics/evaluate.json.
        margin: differences in average precision below it count as none.
    """
    systems = [system for system in LADDER if system in comparison]
    if "difference" in comparison:
        print_ladder(name, comparison, systems)
    for system in systems:
        if "difference" not in comparison:
            print(f"evaluate: {name}: {system}: {format_decisions(comparison[system])}")
        if unparsable := comparison[system].get("unparsable"):
            print(
                f"evaluate: WARNING: {name}: {system}: {unparsable} of {comparison['size']['rows']} answers could not "
                "be read, and count as no alarm"
            )
    difference = comparison.get("difference", {})
    print_difference(name, "model minus baseline", difference, ("the model wins", "the baseline wins"), margin)
    best = comparison.get("best_cheap", {}).get("name")
    for system, ahead in comparison.get("ahead", {}).items():
        if system in VERDICTS and (system, best) != ("model", "baseline"):
            verdicts = f"{system} wins", f"{best} wins"
            print_difference(name, f"{system} minus {best}, the best cheap system", ahead, verdicts, margin)


def print_ladder(name: str, comparison: dict[str, Any], systems: list[str]) -> None:
    """Prints a table with a row for each system, from the cheapest to the dearest."""
    best = comparison["best_cheap"]["name"]
    rows = [COLUMNS]
    for system in systems:
        block, less = comparison[system], comparison["ahead"].get(system, {})
        precision = f"{block['precision']:.3f}" if block["tp"] + block["fp"] else "no alarm"
        rows.append(
            (
                system,
                format_interval(block, "average_precision", 3) if "average_precision" in block else "",
                f"{block['f1']:.3f}",
                precision,
                f"{block['recall']:.3f}",
                f"{less['average_precision']:+.3f}" if "average_precision" in less else "best" * (system == best),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"evaluate: {name}: {'  '.join(cells)}".rstrip())


def print_difference(
    name: str, what: str, difference: dict[str, float], verdicts: tuple[str, str], margin: float
) -> None:
    """Prints a difference in average precision, with its interval and what follows from it, if it has an interval.

    Args:
        name: of the set.
        what: the two systems.
        difference: their difference in each metric.
        verdicts: what to say if the first, or the second, is shown to be better.
        margin: differences below it count as none.
    """
    if "average_precision_low" in difference:
        value, low, high = (difference[f"average_precision{end}"] for end in ("", "_low", "_high"))
        shown = f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"evaluate: {name}: average precision, {what}: {shown}: {verdict(low, high, verdicts, margin)}")


def verdict(low: float, high: float, verdicts: tuple[str, str], margin: float) -> str:
    """What an interval of a difference says. An interval that holds 0 shows no difference, and does not exclude one.

    Args:
        low, high: its ends.
        verdicts: what to say if all of it lies above 0, or below.
        margin: within -margin and +margin systems count as equal; 0 for never.

    >>> verdict(-0.1, 0.08, ("a wins", "b wins"), 0.02)
    'not shown; differences from -0.100 to +0.080 fit'
    >>> verdict(-0.01, 0.015, ("a wins", "b wins"), 0.02)
    'equal within the margin of 0.02'
    >>> verdict(0.01, 0.03, ("a wins", "b wins"), 0.02)
    'a wins'
    """
    if -margin < low and high < margin:
        return f"equal within the margin of {margin:g}"
    if low > 0 or high < 0:
        return verdicts[0] if low > 0 else verdicts[1]
    return f"not shown; differences from {low:+.3f} to {high:+.3f} fit"


def print_promise(name: str, decided: dict[str, float], kept: dict[str, Any], promised: dict[str, Any]) -> None:
    """Prints the precision on a set beside the one promised on valid, both at the same share of fraud, and the bands.

    Args:
        name: of the set.
        decided: metrics of the model on it.
        kept: its metrics at the promised share of fraud.
        promised: metrics on valid at that share.
    """
    if "bands" in kept:
        print_bands(name, kept["bands"], promised["bands"])
    if "precision" not in kept:  # a single class
        return
    precision = f"{kept['precision']:.3f}" if decided["tp"] + decided["fp"] else "undefined (no alarm)"
    least = f" (at least {promised['precision_low']:.3f})" if "precision_low" in promised else ""
    shares = f"precision {precision}, promised on valid {promised['precision']:.3f}{least}"
    print(f"evaluate: {name}: {shares}, each with {kept['fraud_fraction']:.0%} fraud")


def print_bands(name: str, kept: dict[str, float], promised: dict[str, float]) -> None:
    """Prints what the bands do on a set beside what valid promised.

    Args:
        name: of the set.
        kept: figures of the bands on it.
        promised: those on valid, with bounds.
    """
    figures = (
        ("reviews_per_1000", "reviews per 1,000 texts {:.1f}", "high"),
        ("blocked_per_1000", "blocked {:.1f}", ""),
        ("precision", "precision of them {:.3f}", "low"),
        ("missed", "share of fraud that passes {:.3f}", "high"),
        ("cost_per_1000", "cost {:.1f}", "high"),
    )
    comparable = kept["fraud_fraction"] == promised["fraud_fraction"]  # not with a single class
    said = []
    for key, words, side in figures:
        if key in kept:
            bound = promised.get(f"{key}_{side}") if comparable else None
            most = "" if bound is None else f" (promised at {'least' if side == 'low' else 'most'} {bound:.4g})"
            said.append(words.format(kept[key]) + most)
    print(f"evaluate: {name}: bands, with {kept['fraud_fraction']:.0%} fraud: {', '.join(said)}")


def warn_of_shift(name: str, shift: Shift) -> None:
    """Prints in what a set differs from valid, if it does."""
    for line in shift.warning(f"evaluate: WARNING: {name}", ADVICE):
        print(line)


def format_decisions(decided: dict[str, float]) -> str:
    """Precision, recall, F1 and false alarms as far as the set defines them, and what it doesn't define."""
    if not decided["fp"] + decided["tn"]:
        return f"no harmless texts, so precision and F1 say nothing; recall {format_interval(decided, 'recall', 3)}"
    alarms = f"{format_interval(decided, 'false_alarms_per_1000', 1)} false alarms per 1,000 harmless texts"
    if not decided["tp"] + decided["fn"]:
        return f"no fraud, so precision, recall and F1 are undefined; {alarms}"
    if not decided["tp"] + decided["fp"]:
        return f"no alarm, so precision is undefined; recall 0.000, f1 0.000, {alarms}"
    shown = ", ".join(f"{key} {decided[key]:.3f}" for key in ("precision", "recall", "f1"))
    return f"{shown}, {alarms}"


def format_interval(decided: dict[str, float], key: str, digits: int) -> str:
    """A metric with its interval, if it has one."""
    low, high = decided.get(f"{key}_low"), decided.get(f"{key}_high")
    return f"{decided[key]:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")
