"""What the bands promise: figures on valid that they were not chosen on, each with a bound on its bad side."""

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

from stages.bands import BLOCK, REVIEW, BandRule, band_figures, choose_bands
from stages.metrics import CalibrationMethod, ThresholdRule, prior_ratios
from stages.select.promise import LEVEL, all_of, out_of_fold
from stages.units import effective_units, jackknife_variance, left_out

SIDES = {"precision": "low", "missed": "high", "reviews_per_1000": "high", "cost_per_1000": "high"}


def promise_bands(
    y_true: np.ndarray,
    units: np.ndarray,
    log_odds: np.ndarray,
    rules: tuple[ThresholdRule, BandRule],
    method: CalibrationMethod,
) -> dict[str, float]:
    """What the bands do on valid, where each text is judged by choices that did not see its unit.

    The figures are those of `band_figures`. The bounds precision_low, missed_high, reviews_per_1000_high and
    cost_per_1000_high are meant to lie on the bad side of the truth of the bands that all of valid chooses in 95 of 100
    cases each (docs/use.md has how often they did in simulations).

    Args:
        y_true: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        log_odds: scores before calibration, float of shape (n_rows,).
        rules: how the threshold is chosen, and how the bands are.
        method: how scores are calibrated.
    """
    fold, weights, probability, threshold = out_of_fold(y_true, units, log_odds, rules[0], method)
    band = np.empty(len(y_true), dtype=int)
    for each, seen in enumerate(weights):
        bands = choose_bands(y_true, probability[each], float(threshold[each]), rules[1], seen)
        band[fold == each] = bands.numbers(probability[each])[fold == each]
    share = rules[1].fraud_fraction
    return band_bounds(y_true, band, units, rules[1]) | {
        "fraud_fraction": float(np.mean(y_true)) if share is None else share
    }


def band_bounds(y_true: np.ndarray, band: np.ndarray, units: np.ndarray, rule: BandRule) -> dict[str, float]:
    """Figures of the bands with bounds over units: a jackknife with Student's t on the logit.

    Args:
        y_true: bool of shape (n_rows,).
        band: the place in stages.bands.BANDS of each row, int of shape (n_rows,).
        units: int of shape (n_rows,).
        rule: has the share of fraud and the costs.
    """
    without = [band_figures(y_true, band, weights, rule) for weights in left_out(units)]
    quantile = float(t.ppf(LEVEL, max(effective_units(units) - 1, 1.0)))
    found = {}
    for name, (value,) in band_figures(y_true, band, np.ones((1, len(y_true))), rule).items():
        if not np.isfinite(value):  # nothing defines it
            continue
        found[name] = float(value)
        if name not in SIDES:
            continue
        side, scale = SIDES[name], largest(name, rule)
        share = value / scale
        if share in (0, 1):
            bound = all_or_none(name, share, (y_true, band, units), rule)
        else:
            variance = jackknife_variance(np.concatenate([block[name] for block in without]) / scale)
            variance += unseen(y_true, rule) if name == "cost_per_1000" else 0.0
            variance += unseen_class(y_true, band, rule) if name == "reviews_per_1000" else 0.0
            width = quantile * np.sqrt(variance) / (share * (1 - share))
            bound = float(expit(logit(share) + (width if side == "high" else -width)))
        if not np.isfinite(bound):  # a single unit decides whether there is a figure
            bound = float(side == "high")
        found[f"{name}_{side}"] = bound * scale
    return found


def largest(name: str, rule: BandRule) -> float:
    """The largest value that a figure may have."""
    if name == "cost_per_1000" and rule.cost is not None:
        return 1000 * max(rule.cost.values())
    return 1000.0 if name.endswith("_per_1000") else 1.0


def unseen(y_true: np.ndarray, rule: BandRule) -> float:
    """The variance of the cost, as a share of the largest, that one more miss and one more false alarm bring.

    Misses are few and dear. Where valid has none, they have no variance on it, though they happen.
    """
    assert rule.cost is not None
    ratios = prior_ratios(y_true, np.ones((1, len(y_true))), rule.fraud_fraction)
    each = [rule.cost[key] * float(ratio[0, 0]) for key, ratio in zip(("fn", "fp"), ratios, strict=True)]
    return float(np.square(each).sum()) / (len(y_true) * max(rule.cost.values())) ** 2


def unseen_class(y_true: np.ndarray, band: np.ndarray, rule: BandRule) -> float:
    """The variance of the share of reviews that one more text of a class brings which the review band lacks on valid.

    Args:
        y_true: bool of shape (n_rows,).
        band: as in band_bounds.
        rule: has the share of fraud. The rarer valid's share makes a class, the more texts a row stands for.
    """
    ratios = prior_ratios(y_true, np.ones((1, len(y_true))), rule.fraud_fraction)
    lacking = [
        float(ratio[0, 0])
        for rows, ratio in zip((y_true, ~y_true), ratios, strict=True)
        if not (rows & (band == REVIEW)).any()
    ]
    return float(np.square(lacking).sum()) / len(y_true) ** 2


def all_or_none(name: str, share: float, rows: tuple[np.ndarray, np.ndarray, np.ndarray], rule: BandRule) -> float:
    """The bound of a share that is 0 or 1, of so many units (Clopper and Pearson 1934).

    Args:
        name: of the figure.
        share: 0 or 1.
        rows: label, band and unit of each row, each of shape (n_rows,).
        rule: has the share of fraud.
    """
    if share == (SIDES[name] == "high"):  # it can't be worse
        return share
    y_true, band, units = rows
    fraud, harmless = (
        float(each[0, 0]) for each in prior_ratios(y_true, np.ones((1, len(y_true))), rule.fraud_fraction)
    )
    if name == "missed":
        return 1 - all_of(units[y_true])
    if name == "precision":
        if y_true.all():
            return all_of(units[band == BLOCK])
        # Of the harmless texts so many may be blocked, though none of valid's is.
        false = harmless * (1 - all_of(units[~y_true])) * (~y_true).sum()
        blocked = fraud * (band == BLOCK).sum()
        return float(min(all_of(units[band == BLOCK]), blocked / (blocked + false)))
    return 1 - all_of(units) ** max(fraud, harmless)  # a row may stand for several texts
