"""What the comparison of two revisions prints: ten lines."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stages.compare.pairs import Pairs
from stages.compare.sides import SPLITS, Side
from stages.evaluate.messages import verdict

SHOWN = {"average_precision": "average precision", "f1": "F1", "precision": "precision", "recall": "recall"}
MOST_PARAMS = 8  # named in the line of params


def describe(a: Side, b: Side, pairs: Pairs, difference: Mapping[str, float], margin: float) -> Iterator[str]:
    """Yields the lines.

    Args:
        a, b: the sides.
        pairs: the rows that both tests hold.
        difference: B minus A, with intervals.
        margin: differences within it count as none.
    """
    sizes = [len(side.rows["test"]) for side in (a, b)]
    yield f"compare: {a.name} → {b.name}: the model on the rows that both tests hold"
    relabelled = f"; {pairs.relabelled} with another label left out" if pairs.relabelled else ""
    units = len(np.unique(pairs.units))
    yield f"compare: rows: {len(pairs.y_true)} of {sizes[0]} and {sizes[1]}, in {units} units{relabelled}"
    values = [side.metrics(pairs.y_true) for side in (pairs.a, pairs.b)]
    for metric, name in SHOWN.items():
        if metric in difference:
            yield f"compare: {name}: {change(values[0][metric], values[1][metric], difference, metric)}"
    yield f"compare: best cheap system, on each whole test: {best_cheap(a)} → {best_cheap(b)}"
    yield f"compare: data: {data_difference(a, b)}"
    yield f"compare: params: {params_difference(a.params, b.params)}"
    main = "average_precision" if "average_precision" in difference else "f1"
    if f"{main}_low" not in difference:
        yield "compare: verdict: too few units for an interval"
        return
    said = verdict(difference[f"{main}_low"], difference[f"{main}_high"], (f"{b.name} wins", f"{a.name} wins"), margin)
    yield f"compare: verdict by {SHOWN[main]}: {said}. Seeds are not in the interval: `make seeds` measures them"


def change(old: float, new: float, difference: Mapping[str, float], metric: str) -> str:
    """A metric before and after, and the difference with its interval.

    Args:
        old, new: values.
        difference: of all metrics.
        metric: its name.
    """
    bounds = [difference[f"{metric}{end}"] for end in ("_low", "_high") if f"{metric}{end}" in difference]
    interval = f" [{bounds[0]:+.4f}, {bounds[1]:+.4f}]" if bounds else ""
    return f"{old:.4f} → {new:.4f}, {difference[metric]:+.4f}{interval}"


def best_cheap(side: Side) -> str:
    name = side.figures.get("best_cheap", {}).get("name")
    found = side.figures.get(name, {}).get("average_precision") if name else None
    return f"{name} {found:.4f}" if found is not None else "none"


def data_difference(a: Side, b: Side) -> str:
    """How many rows, text and label, only one side has of each split."""
    parts = []
    for split in SPLITS:
        one, other = (Counter((row.input, row.label) for row in side.rows[split]) for side in (a, b))
        less, more = (one - other).total(), (other - one).total()
        if less or more:
            parts.append(f"{split} {one.total()} rows, {less} less and {more} more")
    return "; ".join(parts) or "the same rows in train, valid and test"


def params_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """The params that differ, the first few by name and value."""
    one, other = flat(a), flat(b)
    keys = [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
    shown = [f"{key} {one.get(key, 'none')} → {other.get(key, 'none')}" for key in keys[:MOST_PARAMS]]
    more = [f"{len(keys) - MOST_PARAMS} more"] if len(keys) > MOST_PARAMS else []
    return "; ".join(shown + more) or "the same"


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found
