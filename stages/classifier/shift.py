"""Whether texts differ from valid, on which the threshold was chosen, by their characters and scores alone.

Each feature of a text is compared by the Kolmogorov-Smirnov distance, the largest gap between two cumulative shares.
Texts are counted in cells between quantiles of valid, so memory doesn't grow with their number, and no text is kept.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load
from scipy.special import expit
from scipy.stats import kstwo

from stages.artifacts import read_json, replacing, write_numbers
from stages.errors import UserError
from stages.metrics import prior_ratios
from stages.text.example import Example
from stages.units import effective_units

REFERENCE_FILE = "reference.json"
BIGRAMS_FILE = "bigrams.safetensors"
EDGES = 50  # quantiles of valid: what lies between two of them, a fiftieth of valid, can hide from a distance
FEWEST_ROWS = 50  # fewer texts are not compared
LEAST_DISTANCE = 0.2
MOST_P_VALUE = 0.001
TEXTS_AT_ONCE = 2000
# Spreads neighbouring numbers over 64 bits (Knuth 1998, section 6.4: 2^64 over the golden ratio).
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
ASCII_LETTERS = re.compile("[A-Za-z]+")

# Each feature, and what its value says of a text. In the order of the report.
FEATURES = {
    "length": "{:.0f} characters",
    "vocabulary": "{:.1%} of their pairs of neighbouring characters in common with train",
    "script": "{:.1%} ASCII letters",
    "score": "a probability of fraud of {:.3f}",
}
ONE_SIDED = {"vocabulary"}  # texts that are more familiar than valid's are no reason for a warning

Cells = dict[str, list[int]]  # by feature: how many texts are in each cell


@dataclass(frozen=True)
class Distribution:
    """A feature on valid.

    edges: k rising values. shares: 2k + 1 shares of valid: below the first edge, at it, between it and the second, at
    that, ..., above the last.
    """

    edges: list[float]
    shares: list[float]

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray) -> "Distribution":
        """The distribution of values. weights: of the rows. Both are float of shape (n_rows,)."""
        edges = np.unique(values)
        if len(edges) > EDGES:
            edges = np.unique(np.quantile(values, np.linspace(0, 1, EDGES), method="inverted_cdf"))
        shares = np.bincount(cells_of(edges, values), weights, 2 * len(edges) + 1) / weights.sum()
        return cls(edges.tolist(), shares.tolist())

    def count(self, values: np.ndarray) -> list[int]:
        """How many of the values are in each cell."""
        return np.bincount(cells_of(np.array(self.edges), values), minlength=len(self.shares)).tolist()


@dataclass(frozen=True)
class Comparison:
    """A feature of some texts beside valid.

    Attributes:
        distance: the largest gap between the two cumulative shares.
        p_value: how often chance alone makes such a gap.
        edge, inclusive: where it is: at values up to the edge, or below it.
        here, on_valid: the cumulative shares there.
    """

    distance: float
    p_value: float
    edge: float
    inclusive: bool
    here: float
    on_valid: float

    @property
    def shifted(self) -> bool:
        return self.distance > LEAST_DISTANCE and self.p_value < MOST_P_VALUE


@dataclass(frozen=True, eq=False)
class Reference:
    """Valid, as if `fraud_fraction` of its texts were fraud, the share that the threshold is for.

    Attributes:
        bigrams: uint32 of shape (n_bigrams,), rising hashes of the pairs of neighbouring characters in train.
        features: by name.
        effective_rows: how many independent texts valid counts for.
        rows_per_unit: how many texts count for one. Those of a unit resemble each other.
        flagged: the share of valid that is called fraud.
        fraud_fraction: of fraud.
    """

    bigrams: np.ndarray
    features: dict[str, Distribution]
    effective_rows: float
    rows_per_unit: float
    flagged: float
    fraud_fraction: float

    def count(self, texts: Sequence[str], log_odds: np.ndarray | None) -> Cells:
        """Counts N texts by feature.

        Args:
            texts: as the system reads them.
            log_odds: calibrated, float of shape (N,). None for texts without scores.
        """
        values = measure(texts, self.bigrams) | ({} if log_odds is None else {"score": log_odds})
        return {name: self.features[name].count(each) for name, each in values.items()}

    def compare(self, counted: Mapping[str, Sequence[int]]) -> dict[str, Comparison]:
        """Compares texts, counted by `count`, with valid. Empty if there are fewer than FEWEST_ROWS."""
        if not counted or sum(counted["length"]) < FEWEST_ROWS:
            return {}
        return {name: self.compare_feature(name, np.array(cells)) for name, cells in counted.items()}

    def compare_feature(self, name: str, cells: np.ndarray) -> Comparison:
        """Compares one feature. cells: int of shape (2k + 1,), the number of texts in each cell."""
        feature, rows = self.features[name], cells.sum()
        here, on_valid = np.cumsum(cells)[:-1] / rows, np.cumsum(feature.shares)[:-1]
        gap = here - on_valid
        size = gap if name in ONE_SIDED else np.abs(gap)
        at = int(np.argmax(size))
        distance = float(np.clip(size[at], 0, 1))
        own = rows / self.rows_per_unit  # as if the texts came in units like those of valid
        pooled = max(round(own * self.effective_rows / (own + self.effective_rows)), 1)
        p_value = float(kstwo.sf(distance, pooled))
        return Comparison(
            distance, p_value, feature.edges[at // 2], at % 2 == 1, float(here[at]), min(float(on_valid[at]), 1.0)
        )


@dataclass(frozen=True)
class Shift:
    """Some texts beside valid.

    Attributes:
        reference: valid.
        comparisons: by feature; empty if there are too few texts.
        flagged: the share of the texts that is called fraud. None if unknown.
    """

    reference: Reference
    comparisons: dict[str, Comparison]
    flagged: float | None

    def report(self) -> dict[str, Any]:
        """The comparison for metrics/evaluate.json."""
        numbers = {
            name: {"distance": each.distance, "p_value": each.p_value, "shifted": each.shifted}
            for name, each in self.comparisons.items()
        }
        return numbers | {"flagged": self.flagged, "flagged_on_valid": self.reference.flagged}

    def warning(self, head: str, advice: str) -> Iterator[str]:
        """Yields the lines of a warning, none if nothing is shifted.

        Args:
            head: how the first line starts.
            advice: what to do, as sentences.
        """
        shifted = {name: each for name, each in self.comparisons.items() if each.shifted}
        if not shifted:
            return
        yield f"{head}: these texts differ from valid, on which the threshold was chosen, so it may not fit them:"
        for name, each in shifted.items():
            value = FEATURES[name].format(expit(each.edge) if name == "score" else each.edge)
            bound = "at most" if each.inclusive else "less than"
            yield f"  {name}: {each.here:.1%} of these texts have {bound} {value}, {each.on_valid:.1%} of valid"
        if self.flagged is not None:
            yield (
                f"  {self.flagged:.1%} of these texts are called fraud, {self.reference.flagged:.1%} of valid "
                f"(with {self.reference.fraud_fraction:.0%} fraud)"
            )
        yield f"  {advice}"


def cells_of(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The cell of each value, int of shape (n,): 2i at the gap before edge i, 2i + 1 at the edge itself.

    >>> cells_of(np.array([1.0, 2.0]), np.array([0.5, 1.0, 1.5, 2.0, 9.0])).tolist()
    [0, 1, 2, 3, 4]
    """
    return np.searchsorted(edges, values, "left") + np.searchsorted(edges, values, "right")


def describe_valid(
    train: Iterable[str], valid: list[Example], log_odds: np.ndarray, flagged: np.ndarray, fraud_fraction: float | None
) -> Reference:
    """Describes what the threshold was chosen on.

    Args:
        train: the texts that the model was trained on.
        valid: n_rows rows.
        log_odds: their calibrated log-odds, float of shape (n_rows,).
        flagged: which of them are called fraud, bool of shape (n_rows,).
        fraud_fraction: the share of fraud that the threshold is for; None is that of the rows.
    """
    y_true, units = np.array([row.label for row in valid]), np.array([row.unit for row in valid])
    fraud, harmless = (ratio.item() for ratio in prior_ratios(y_true, np.ones((1, len(valid))), fraud_fraction))
    weights = np.where(y_true, fraud, harmless)
    bigrams = all_bigrams(train)
    values = measure([row.input for row in valid], bigrams) | {"score": log_odds}
    by_unit = np.bincount(np.unique(units, return_inverse=True)[1], weights)
    return Reference(
        bigrams,
        {name: Distribution.of(each, weights) for name, each in values.items()},
        effective_rows=float(by_unit.sum() ** 2 / (by_unit**2).sum()),
        rows_per_unit=len(valid) / effective_units(units),
        flagged=float(weights @ flagged / weights.sum()),
        fraud_fraction=float(weights @ y_true / weights.sum()),
    )


def measure(texts: Sequence[str], bigrams: np.ndarray) -> dict[str, np.ndarray]:
    """The features of N texts that need no score, each float of shape (N,). bigrams: those of train, rising."""
    return {
        "length": np.array([len(text) for text in texts], dtype=float),
        "vocabulary": np.array([known_share(bigrams_of(text), bigrams) for text in texts], dtype=float),
        "script": np.array([ascii_letters(text) for text in texts], dtype=float),
    }


def bigrams_of(text: str) -> np.ndarray:
    """Hashes of the different pairs of neighbouring characters, whatever their case; rising uint32.

    Two pairs share a hash with a chance of 2^-32, which moves no figure.
    """
    points = np.frombuffer(text.casefold().encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    pairs = points[:-1] << np.uint64(21) | points[1:]
    return np.unique((pairs * MULTIPLIER >> np.uint64(32)).astype(np.uint32))


def all_bigrams(texts: Iterable[str]) -> np.ndarray:
    """The bigrams of all texts, rising uint32."""
    found, rest = np.zeros(0, dtype=np.uint32), iter(texts)
    while some := list(islice(rest, TEXTS_AT_ONCE)):
        found = np.unique(np.concatenate([found, *map(bigrams_of, some)]))
    return found


def known_share(pairs: np.ndarray, known: np.ndarray) -> float:
    """The share of a text's bigrams that are known. A text without any holds nothing unknown: 1."""
    if not len(pairs) or not len(known):
        return float(not len(pairs))
    place = np.searchsorted(known, pairs).clip(max=len(known) - 1)
    return float((known[place] == pairs).mean())


def ascii_letters(text: str) -> float:
    """The share of a text's characters that are A to Z or a to z."""
    return sum(map(len, ASCII_LETTERS.findall(text))) / max(len(text), 1)


def add_cells(one: Cells, other: Cells) -> Cells:
    """The counts of both. An empty one counts nothing."""
    if not one or not other:
        return one or other
    return {name: [a + b for a, b in zip(cells, other[name], strict=True)] for name, cells in one.items()}


def write_reference(folder: Path, reference: Reference) -> None:
    """Writes the two files of a reference into a folder."""
    values = {name: value for name, value in vars(reference).items() if name != "bigrams"}
    values["features"] = {name: asdict(each) for name, each in reference.features.items()}
    with replacing(folder / REFERENCE_FILE) as file:  # write_json refuses lists, which DVC can't read as metrics
        json.dump(values, file, sort_keys=True, allow_nan=False)
        file.write("\n")
    write_numbers(folder / BIGRAMS_FILE, {"bigrams": reference.bigrams})


def read_reference(folder: Path) -> Reference | None:
    """Reads the files of `write_reference`. None in folders of versions before 0.4. Raises UserError if damaged."""
    if not (folder / REFERENCE_FILE).is_file():
        return None
    try:
        values = read_json(folder / REFERENCE_FILE)
        features = {name: Distribution(**each) for name, each in values.pop("features").items()}
        if features.keys() != FEATURES.keys():
            raise ValueError(f"features {', '.join(features)}")
        for each in features.values():
            if len(each.shares) != 2 * len(each.edges) + 1:
                raise ValueError(f"{len(each.shares)} shares for {len(each.edges)} edges")
        return Reference(load((folder / BIGRAMS_FILE).read_bytes())["bigrams"], features, **values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise UserError(
            f"{folder / REFERENCE_FILE} and {BIGRAMS_FILE} can't be read: {type(error).__name__}: {error}; expected "
            "the files that stage select writes: run `dvc repro --force --single-item select`, or delete the first to "
            "use the model without a comparison"
        ) from error
