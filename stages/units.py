"""Units, the rows that belong together: how many they count for, and weights that draw them or leave them out."""

from collections.abc import Iterator

import numpy as np

CELLS_AT_ONCE = 2_000_000  # row weights in a block
MOST_LEFT_OUT = 400  # of more units, random groups are left out


def effective_units(units: np.ndarray) -> float:
    """The number of equally large units that average as much noise away: (sum n)^2 / sum n^2 (Kish 1965).

    >>> effective_units(np.array([1, 1, 2, 2])), effective_units(np.array([1, 1, 1, 2]))
    (2.0, 1.6)
    """
    rows = np.unique(units, return_counts=True)[1].astype(float)
    return float(rows.sum() ** 2 / (rows**2).sum())


def resampled_weights(units: np.ndarray, samples: int, seed: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields blocks of resamples, and their row weights, float of shape (n_block, n_rows).

    A resample draws as many units as there are, with replacement. The weight of a row is how often its unit was drawn.
    The same arguments give the same weights.
    """
    _, unit = np.unique(units, return_inverse=True)
    count = int(unit.max()) + 1
    rng = np.random.default_rng(seed)
    at_once = max(1, CELLS_AT_ONCE // len(unit))
    for first in range(0, samples, at_once):
        part = slice(first, min(first + at_once, samples))
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=part.stop - part.start)
        yield part, drawn[:, unit].astype(np.float64)


def left_out(units: np.ndarray, seed: int = 0) -> Iterator[np.ndarray]:
    """Yields blocks of row weights, (n_block, n_rows), each without one unit or one random group of units."""
    _, unit = np.unique(units, return_inverse=True)
    count = int(unit.max()) + 1
    if count > MOST_LEFT_OUT:
        unit = np.random.default_rng(seed).permutation(np.arange(count) % MOST_LEFT_OUT)[unit]
        count = MOST_LEFT_OUT
    at_once = max(1, CELLS_AT_ONCE // len(unit))
    for first in range(0, count, at_once):
        yield (unit != np.arange(first, min(first + at_once, count))[:, None]).astype(np.float64)


def jackknife_variance(without: np.ndarray) -> float:
    """The variance of an estimate, from its values without one unit each, shape (n_units,)."""
    count = len(without)
    return float((count - 1) / count * ((without - without.mean()) ** 2).sum())
