"""Shares of rows with intervals, by kind of text, and what a threshold costs."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stages.report.read import Run
from stages.report.words import Words, say
from stages.units import effective_units

Z = 1.959964  # of 95 %
Z_ONE_SIDED = 1.644854  # of a one-sided 95 %
FEW_ALARMS = 10  # fewer false alarms than this are too few for a rate: a bound is shown
MOST_POINTS = 400
FEWEST_ROWS = 5  # of a kind that a sentence names
NO_ALARM = 2.0  # a threshold that no probability reaches


@dataclass(frozen=True)
class Rate:
    """In how many of some rows something happened, with a 95 % interval of its share."""

    name: str
    happened: int
    rows: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.happened / self.rows


@dataclass(frozen=True)
class Point:
    """What a threshold finds on test: fraud called fraud, and harmless called fraud."""

    threshold: float
    tp: int
    fp: int


@dataclass(frozen=True)
class Costs:
    """Per 1,000 texts: alarms, how many of them are false, misses, and their cost."""

    alarms: float
    false_alarms: float
    misses: float
    cost: float

    @property
    def right(self) -> float:
        """The share of alarms that are right; of no alarms all."""
        return 1 - self.false_alarms / self.alarms if self.alarms else 1.0


def rate(name: str, happened: np.ndarray, units: np.ndarray) -> Rate:
    """A share with Wilson's interval (1927). Rows of one unit count as one draw, by Kish's number of units.

    Args:
        name: of these rows.
        happened: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
    """
    share, n = float(happened.mean()), effective_units(units)
    centre, scale = share + Z * Z / (2 * n), 1 + Z * Z / n
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    low, high = max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
    return Rate(name, int(happened.sum()), len(happened), min(low, share), max(high, share))


def by_kind(run: Run, kinds: Iterable[str], keep: np.ndarray) -> list[Rate]:
    """The share that the system in use flags of each kind of text, the largest first.

    Args:
        run: the figures.
        kinds: the kind of each of the n_rows rows of test.
        keep: bool of shape (n_rows,), the rows that count.
    """
    flagged, units = run.flagged(run.used), np.array([row.unit for row in run.test])
    names = np.array(list(kinds), dtype=object)
    found = []
    for name in sorted(set(names[keep])):
        rows = keep & (names == name)
        found.append(rate(name, flagged[rows], units[rows]))
    return sorted(found, key=lambda each: (-each.share, -each.rows, each.name))


def categories(run: Run) -> list[str]:
    """The category of each row of test; "none" as in metrics/plots/slices.csv."""
    return [row.category or "none" for row in run.test]


def files(run: Run) -> list[str]:
    return [row.source.rpartition(":")[0] for row in run.test]


def length_bands(run: Run) -> list[str]:
    """The band of each row, as metrics/plots/slices.csv names them: "0051-0100", "0401 or more"."""
    bands = sorted({row["value"] for row in run.tables["slices"] if row["by"] == "characters"})
    starts = [int(band[:4]) for band in bands]
    return [bands[max(0, int(np.searchsorted(starts, len(row.input), side="right")) - 1)] for row in run.test]


def outstanding(rates: list[Rate], most: bool) -> Rate | None:
    """The kind that is flagged most, or least; of those with FEWEST_ROWS rows if there are any."""
    enough = [each for each in rates if each.rows >= FEWEST_ROWS] or rates
    if not enough:
        return None
    return (max if most else min)(enough, key=lambda each: (each.share, each.rows if most else -each.rows))


def points(run: Run, system: str) -> list[Point]:
    """What each threshold finds on test, from no alarm to everything.

    Of many there are about MOST_POINTS. The system's own is among them, and the cheapest one for any costs.
    Empty for written answers, which have no threshold.
    """
    scores = run.scores(system)
    if scores is None:
        return []
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-1.0))
    tp, fp = np.cumsum(run.labels[order])[ends], np.cumsum(~run.labels[order])[ends]
    thresholds = scores[order][ends]
    every = [Point(NO_ALARM, 0, 0), *map(Point, thresholds.tolist(), tp.tolist(), fp.tolist())]
    chosen = run.evaluate[system]["threshold"]
    own = int((thresholds >= chosen).sum())
    every[own] = Point(chosen, every[own].tp, every[own].fp)
    kept = set(np.linspace(0, len(every) - 1, MOST_POINTS).round().astype(int).tolist())
    return [every[index] for index in sorted(kept | {own} | set(corners(every)))]


def corners(every: list[Point]) -> list[int]:
    """Indices of the points on the upper hull of hits over false alarms: whatever costs are, a corner is cheapest."""
    found: list[int] = []
    for index, point in enumerate(every):
        while len(found) > 1 and not turns_down(every[found[-2]], every[found[-1]], point):
            found.pop()
        found.append(index)
    return found


def turns_down(one: Point, two: Point, three: Point) -> bool:
    """Whether the way over three points gets less steep at the second."""
    return (two.tp - one.tp) * (three.fp - two.fp) > (three.tp - two.tp) * (two.fp - one.fp)


def costs(run: Run, point: Point, share: float, false_alarm: float, miss: float, bound: bool = False) -> Costs:
    """What a threshold costs per 1,000 texts. page.js computes the same.

    Args:
        run: the figures.
        point: the threshold.
        share: of fraud among the texts.
        false_alarm: cost of a false alarm.
        miss: cost of a miss.
        bound: take the upper bound of the false alarms where there are few.
    """
    fraud = int(run.labels.sum())
    hits = 1000 * share * (point.tp / fraud if fraud else 0)
    rate = most_false(run, point) if bound else point.fp / (len(run.test) - fraud) if fraud < len(run.test) else 0
    false_alarms = 1000 * (1 - share) * rate
    misses = 1000 * share - hits
    return Costs(hits + false_alarms, false_alarms, misses, false_alarm * false_alarms + miss * misses)


def harmless_units(run: Run) -> float:
    """Kish's number of units of the harmless texts of test."""
    return effective_units(np.array([row.unit for row in run.test if not row.label]))


def is_few(point: Point) -> bool:
    """Whether so few false alarms, or none, say little about their rate: 0 of 278 do not show that there are none."""
    return point.fp < FEW_ALARMS and point.threshold < NO_ALARM


def up_to(point: Point, shown: str) -> Words:
    """A figure that rests on a threshold's false alarms; with few it is a bound."""
    return say("至多 {shown}", "up to {shown}", shown=shown) if is_few(point) else Words(shown, shown)


def most_false(run: Run, point: Point) -> float:
    """The share of harmless texts that is flagged; with few false alarms, its one-sided upper 95 % bound.

    Without any it is exact (the rule of three), otherwise Wilson's (1927). Rows of one unit count as one draw.
    """
    share, n, z = point.fp / int((~run.labels).sum()), harmless_units(run), Z_ONE_SIDED
    if not is_few(point):
        return share
    if not point.fp:
        return 1 - 0.05 ** (1 / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return min(1.0, (share + z * z / (2 * n) + half) / (1 + z * z / n))


def cheapest(run: Run, found: list[Point], share: float, false_alarm: float, miss: float) -> Point:
    """The threshold with the lowest cost on test; of equals the highest.

    Args:
        run: the figures.
        found: the thresholds.
        share: of fraud among the texts.
        false_alarm: cost of a false alarm.
        miss: cost of a miss.
    """
    return min(found, key=lambda point: costs(run, point, share, false_alarm, miss).cost)
