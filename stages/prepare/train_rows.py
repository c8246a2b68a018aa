"""A part of train for a learning curve: whole units, drawn so that a smaller part lies within a larger one."""

import numpy as np

from stages.data.lines import DataError
from stages.params import Prepare
from stages.prepare.deal import renumbered
from stages.prepare.leaks import find_similar_rows, unit_numbers
from stages.prepare.manifest import digest, key_of
from stages.prepare.split import Splits
from stages.text.example import Example

LARGEST_SHARE = 0.2  # a larger unit would be most of what is learned, or leave much of the rows asked for empty


def draw_train(splits: Splits, params: Prepare) -> tuple[Splits, dict[str, int]]:
    """Draws at most params.train_rows rows of train, and keeps their order; the other sets stay as they are.

    Returns the sets, and how many rows were left out. Raises DataError if the drawn rows lack a class.
    """
    if params.train_rows is None:
        return splits, {}
    train = splits["train"]
    units = renumbered(np.array(unit_numbers(train, find_similar_rows(train, params))))
    drawn = draw_units(train, units, params.train_rows, params.seed)
    kept = [example for example, unit in zip(train, units.tolist(), strict=True) if unit in drawn]
    fraud = sum(example.label for example in kept)
    if fraud in (0, len(kept)):
        raise DataError(
            f"prepare.train_rows is {params.train_rows}, and whole units of at most as many rows have {fraud} fraud "
            f"and {len(kept) - fraud} other ones; expected some of both: raise it, or set it to null"
        )
    return {**splits, "train": kept}, {"train_rows": len(train) - len(kept)}


def draw_units(train: list[Example], units: np.ndarray, most: int, seed: int) -> set[int]:
    """The units of at most `most` rows: the first ones of an order that doesn't depend on `most`.

    The order is random, by texts and seed, so that shuffled rows are drawn alike. Where the rows so far have less fraud
    than train, the next unit is one with more fraud than train, and the other way round. A unit waits until it has at
    most LARGEST_SHARE of the rows that it joins; if all wait, the smallest comes next.

    Args:
        train: n_rows rows.
        units: int of shape (n_rows,), the unit of each row, from 0.
        most: number of rows.
        seed: of the order.
    """
    size, fraud = np.bincount(units), np.bincount(units, weights=[example.label for example in train])
    first = [""] * len(size)
    for unit, example in zip(units.tolist(), train, strict=True):
        first[unit] = min(filter(None, (first[unit], "".join(key_of(example)))))
    order = np.argsort([digest(f"{seed} {key}") for key in first], kind="stable")
    size, share = size[order], fraud.sum() / size.sum()
    surplus = fraud[order] - share * size  # rows of fraud above what its size makes one expect
    waiting = np.ones(len(order), dtype=bool)
    rows, excess = 0, 0.0
    drawn: set[int] = set()
    while waiting.any():
        wanted = waiting & ((surplus > 0) == (excess < 0))
        wanted = wanted if wanted.any() else waiting
        small = wanted & (size <= LARGEST_SHARE * (rows + size))
        unit = int(np.argmax(small)) if small.any() else int(np.argmin(np.where(wanted, size, size.max() + 1)))
        if rows + size[unit] > most:
            break
        waiting[unit] = False
        rows, excess = rows + int(size[unit]), excess + float(surplus[unit])
        drawn.add(int(order[unit]))
    return drawn
