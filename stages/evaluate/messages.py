"""What the stage prints of its figures."""

from collections.abc import Iterable
from typing import Any

from stages.text.example import Example

SYSTEMS = ("model", "zero_shot", "baseline", "always_fraud")


def warn_of_unused_categories(without_categories: list[str], sets: Iterable[list[Example]]) -> None:
    """Prints the names in evaluate.without_categories that no text has."""
    for category in set(without_categories) - {example.category for examples in sets for example in examples}:
        print(f"evaluate: WARNING: no text is of the category {category!r} in evaluate.without_categories")


def print_comparison(name: str, comparison: dict[str, Any]) -> None:
    """Prints the decisions of each system on a set, and whether the model or the baseline wins."""
    for system in SYSTEMS:
        print(f"evaluate: {name}: {system}: {format_decisions(comparison[system])}")
        if unparsable := comparison[system].get("unparsable"):
            print(
                f"evaluate: WARNING: {name}: {system}: {unparsable} of {comparison['size']['rows']} answers could not "
                "be read, and count as no alarm"
            )
    difference = comparison.get("difference", {})
    if "average_precision_low" in difference:
        value, low, high = (difference[f"average_precision{end}"] for end in ("", "_low", "_high"))
        verdict = "no difference" if low <= 0 <= high else "the model wins" if value > 0 else "the baseline wins"
        shown = f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"evaluate: {name}: average precision, model minus baseline: {shown}: {verdict}")


def print_promise(name: str, decided: dict[str, float], kept: dict[str, float], promised: dict[str, float]) -> None:
    """Prints the precision on a set beside the one promised on valid, both at the same share of fraud.

    Args:
        name: of the set.
        decided: metrics of the model on it.
        kept: its metrics at the promised share of fraud.
        promised: metrics on valid at that share.
    """
    precision = f"{kept['precision']:.3f}" if decided["tp"] + decided["fp"] else "undefined (no alarm)"
    shares = f"precision {precision}, promised on valid {promised['precision']:.3f}"
    print(f"evaluate: {name}: {shares}, each with {kept['fraud_fraction']:.0%} fraud")


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
