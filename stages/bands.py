"""Three bands instead of one threshold: what to block, what a person reviews, and what passes (select.bands)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit

from stages.metrics import prior_ratios

BANDS = ("pass", "review", "block")
PASS, REVIEW, BLOCK = range(3)
SUREST = 1 - 2.0**-53  # the highest probability below 1


@dataclass(frozen=True)
class BandRule:
    """How the bands are chosen: by costs, or by a budget.

    cost: of a false alarm (fp), a miss (fn) and a review; None with a budget.
    reviews_per_1000: how many of 1,000 texts are reviewed; None with costs.
    fraud_fraction: the share of fraud that this is for; None takes that of the texts.
    """

    cost: Mapping[str, float] | None = None
    reviews_per_1000: float | None = None
    fraud_fraction: float | None = None

    @classmethod
    def from_section(cls, select: Mapping[str, Any]) -> "BandRule | None":
        """The rule in the section `select` of params.yaml, or in a model's record of it. None without bands."""
        return cls(**select["bands"], fraud_fraction=select["fraud_fraction"]) if select.get("bands") else None


@dataclass(frozen=True)
class Bands:
    """The probabilities from which on a text is reviewed, and blocked. They are equal if nothing is reviewed."""

    review: float
    block: float

    def numbers(self, probability: np.ndarray) -> np.ndarray:
        """The band of each text, as its place in BANDS; int of shape (n,)."""
        return np.add(probability >= self.review, probability >= self.block, dtype=int)

    def names(self, probability: np.ndarray) -> list[str]:
        """The names of the bands of n texts. probability: calibrated, float of shape (n,)."""
        return [BANDS[number] for number in self.numbers(probability).tolist()]

    def name(self, probability: float) -> str:
        """The name of a text's band."""
        return self.names(np.array([probability]))[0]

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def choose_bands(
    y_true: np.ndarray,
    probability: np.ndarray,
    threshold: float,
    rule: BandRule,
    weights: np.ndarray | None = None,
) -> Bands:
    """The bands by a rule.

    By costs, each text goes where its probability expects the lowest cost: it is reviewed where that is cheaper than to
    block and than to pass, as if a review was always right. With a budget, those texts are reviewed whose log-odds are
    nearest to the threshold's, as many as the budget allows.

    Args:
        y_true: bool of shape (n_rows,).
        probability: calibrated, float of shape (n_rows,).
        threshold: from which probability on a text is called fraud; only for a budget.
        rule: how to choose.
        weights: of the rows, float of shape (n_rows,). A row without weight is not there. None weights all equally.
    """
    weights = np.ones(len(y_true)) if weights is None else weights
    fraud, harmless = (float(each[0, 0]) for each in prior_ratios(y_true, weights[None], rule.fraud_fraction))
    if rule.cost is not None:
        back = np.log(harmless / fraud)  # from log-odds at the share of fraud that is meant to those of the rows
        edges = rule.cost["review"] / rule.cost["fn"], 1 - rule.cost["review"] / rule.cost["fp"]
        review, block = (float(expit(logit(edge) + back)) for edge in edges)
        return Bands(review, block)
    assert rule.reviews_per_1000 is not None
    centre = safe_logit(np.array(threshold))
    stands_for = weights * np.where(y_true, fraud, harmless)
    half = half_width(np.abs(safe_logit(probability) - centre), stands_for, rule.reviews_per_1000 / 1000)
    # Rounding must not move the threshold out of the band.
    return Bands(min(float(expit(centre - half)), threshold), max(float(expit(centre + half)), threshold))


def safe_logit(probability: np.ndarray) -> np.ndarray:
    """Log-odds that are finite. A threshold above 1, which no text reaches, is taken as the highest below 1."""
    return logit(np.clip(probability, np.finfo(float).tiny, SUREST))


def half_width(distance: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The largest distance within which at most a share of the rows lies, midway to the next row.

    Args:
        distance: of each row, float of shape (n_rows,).
        weights: of the rows, float of shape (n_rows,). A row without weight is not there.
        share: of the sum of the weights, below 1.
    """
    found, row = np.unique(distance[weights > 0], return_inverse=True)
    inside = np.cumsum(np.bincount(row, weights=weights[weights > 0]))
    first_outside = int(np.searchsorted(inside, share * inside[-1] * (1 + 1e-9), side="right"))
    last_inside = found[first_outside - 1] if first_outside else 0.0
    return float((last_inside + found[min(first_outside, len(found) - 1)]) / 2)


def band_figures(y_true: np.ndarray, band: np.ndarray, weights: np.ndarray, rule: BandRule) -> dict[str, np.ndarray]:
    """What the bands do at the rule's share of fraud, each of shape (samples,); NaN where nothing defines it.

    passed_per_1000, reviews_per_1000, blocked_per_1000: of 1,000 texts. precision: the share of blocked texts that are
    fraud. missed: the share of fraud that passes. cost_per_1000: of 1,000 texts, if the rule has costs; a review costs
    the same whatever it finds.

    Args:
        y_true: bool of shape (n_rows,).
        band: the place in BANDS of each row, int of shape (n_rows,).
        weights: of the rows, float of shape (samples, n_rows).
        rule: has the share of fraud and the costs. Rows of one class keep their share.
    """
    ratios = prior_ratios(y_true, weights, rule.fraud_fraction)
    fraud, harmless = (
        np.stack([(weights @ (rows & (band == number))) * ratio[:, 0] for number in range(3)])
        for rows, ratio in ((y_true, ratios[0]), (~y_true, ratios[1]))
    )
    both = fraud + harmless
    with np.errstate(invalid="ignore", divide="ignore"):
        share = both / both.sum(axis=0)
        found = {
            "passed_per_1000": 1000 * share[PASS],
            "reviews_per_1000": 1000 * share[REVIEW],
            "blocked_per_1000": 1000 * share[BLOCK],
            "precision": fraud[BLOCK] / both[BLOCK],
            "missed": fraud[PASS] / fraud.sum(axis=0),
        }
    if rule.cost is not None:
        paid = rule.cost["fp"] * harmless[BLOCK] + rule.cost["fn"] * fraud[PASS] + rule.cost["review"] * both[REVIEW]
        found["cost_per_1000"] = 1000 * paid / both.sum(axis=0)
    return found


def figures_of_set(y_true: np.ndarray, probability: np.ndarray, bands: Bands, rule: BandRule) -> dict[str, float]:
    """What the bands do on a set, as far as it defines it, and the share of fraud that this is for.

    Args:
        y_true: bool of shape (n_rows,).
        probability: calibrated, float of shape (n_rows,).
        bands: where they begin.
        rule: how they were chosen. A set of one class keeps its share of fraud, and has neither precision nor cost.
    """
    found = band_figures(y_true, bands.numbers(probability), np.ones((1, len(y_true))), rule)
    share = float(np.mean(y_true))
    if 0 < share < 1:
        share = share if rule.fraud_fraction is None else rule.fraud_fraction
    else:  # of one class both would only say which
        found = {name: value for name, value in found.items() if name not in ("precision", "cost_per_1000")}
    return {name: float(value[0]) for name, value in found.items() if np.isfinite(value[0])} | {"fraud_fraction": share}
