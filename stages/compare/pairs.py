"""The rows that the tests of two revisions share, and the difference of the models on them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.compare.sides import Side
from stages.errors import UserError
from stages.evaluate.compare import COMPARED
from stages.evaluate.intervals import resample, with_intervals
from stages.evaluate.predictors import Predictions
from stages.text.example import Example

Key = tuple[str, int]  # a text, and how many rows with the same text come before


@dataclass(frozen=True)
class Pairs:
    """Rows with the same text and label in two tests.

    Attributes:
        a, b: predictions of the two models on these n_rows rows.
        y_true: bool of shape (n_rows,).
        units: int of shape (n_rows,): rows that belong together in either test.
        relabelled: number of texts that both tests hold, with different labels.
    """

    a: Predictions
    b: Predictions
    y_true: np.ndarray
    units: np.ndarray
    relabelled: int


def pair(a: Side, b: Side) -> Pairs:
    """Finds the rows that both tests hold. Raises UserError if there are none, or of one class only."""
    row_in_b = dict(numbered(b.rows["test"]))
    shared = [(row, row_in_b[key]) for key, row in numbered(a.rows["test"]) if key in row_in_b]
    tests = a.rows["test"], b.rows["test"]
    same = [(one, other) for one, other in shared if tests[0][one].label == tests[1][other].label]
    rows = np.array(same, dtype=int).reshape(-1, 2)
    y_true = np.array([tests[0][row].label for row in rows[:, 0]], dtype=bool)
    if y_true.all() or not y_true.any():
        raise UserError(
            f"the tests of {a.name} and {b.name} share {len(rows)} rows with the same label, {int(y_true.sum())} of "
            "them fraud; expected both classes: compare revisions of one data set, or keep its split "
            "by prepare.manifest"
        )
    units = joined([np.array([test[row].unit for row in column]) for test, column in zip(tests, rows.T, strict=True)])
    of_a, of_b = (side.predictions.rows(column) for side, column in zip((a, b), rows.T, strict=True))
    return Pairs(of_a, of_b, y_true, units, len(shared) - len(same))


def numbered(examples: list[Example]) -> Iterator[tuple[Key, int]]:
    """Yields a key for each row, and its number. Sources are no key: they hold line numbers, which move."""
    seen: Counter[str] = Counter()
    for number, example in enumerate(examples):
        yield (example.input, seen[example.input]), number
        seen[example.input] += 1


def joined(units: list[np.ndarray]) -> np.ndarray:
    """Units of rows that share a unit in any of several splits into units, all int of shape (n_rows,)."""
    count = len(units[0])
    ends = [np.unique(each, return_inverse=True)[1] for each in units]
    offsets = np.cumsum([count] + [int(each.max()) + 1 for each in ends])
    rows = np.tile(np.arange(count), len(ends))
    nodes = np.concatenate([each + offset for each, offset in zip(ends, offsets[:-1], strict=True)])
    graph = coo_array((np.ones(len(rows)), (rows, nodes)), shape=(offsets[-1], offsets[-1]))
    return connected_components(graph, directed=False)[1][:count]


def compare_pairs(pairs: Pairs, samples: int) -> dict[str, float]:
    """B minus A in each metric that both have, with whole intervals on the same resamples.

    Args:
        pairs: the rows.
        samples: number of resamples.
    """
    sides = {"a": pairs.a, "b": pairs.b}
    resamples = resample(sides, pairs.y_true, pairs.units, samples)
    a, b = (side.metrics(pairs.y_true) for side in sides.values())
    differences = {name: b[name] - a[name] for name in COMPARED if name in a and name in b}
    return with_intervals(differences, resamples, "b", "a")
