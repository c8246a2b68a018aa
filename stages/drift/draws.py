"""Draws of whole units: what new texts would look like if nothing had changed."""

from collections.abc import Iterator, Sequence

import numpy as np


def different(texts: Sequence[str]) -> np.ndarray:
    """The row numbers of the first of equal texts, rising.

    >>> different(["a", "b", "a"]).tolist()
    [0, 1]
    """
    return np.array(sorted({text: row for row, text in reversed(list(enumerate(texts)))}.values()), dtype=int)


def first_rows(units: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most `count` row numbers, rising: those of units in random order. The last unit may be cut.

    Args:
        units: int of shape (n_rows,).
        count: how many rows.
        rng: gives the order.
    """
    _, unit = np.unique(units, return_inverse=True)
    place = rng.permutation(unit.max() + 1)[unit]
    return np.sort(np.argsort(place, kind="stable")[:count])


def drawn_rows(units: np.ndarray, count: int, draws: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields `draws` times `count` row numbers, of units drawn with replacement. The last unit may be cut.

    Args:
        units: int of shape (n_rows,).
        count: rows in a draw.
        draws: how many.
        rng: draws.
    """
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    by_unit, starts = np.argsort(unit, kind="stable"), np.cumsum(sizes) - sizes
    for _ in range(draws):
        drawn = rng.integers(0, len(sizes), size=count)  # a unit has a row at least, so this many units are enough
        drawn = drawn[: np.searchsorted(np.cumsum(sizes[drawn]), count) + 1]
        size = sizes[drawn]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        yield by_unit[np.repeat(starts[drawn], size) + within][:count]


def p_value(found: float, by_chance: np.ndarray) -> float:
    """How often chance gives as much as was found, which counts as a draw itself (Phipson and Smyth 2010)."""
    return float((1 + (by_chance >= found - 1e-12).sum()) / (1 + len(by_chance)))
