"""What is chosen on valid for a system, its calibration and threshold, and the same choices in resamples of valid."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit

from stages.errors import UserError
from stages.metrics import (
    Calibration,
    CalibrationMethod,
    ThresholdRule,
    choose_threshold,
    choose_thresholds,
    fit_calibration,
    fit_calibrations,
)
from stages.text.example import Example
from stages.units import resampled_weights

NO_ALARM = 2.0  # a threshold that no probability reaches
SEED = 1  # of valid's resamples, which are drawn independently of those of the other sets


@dataclass(frozen=True, eq=False)
class Valid:
    """The rows on which calibrations and thresholds are chosen, and how.

    Attributes:
        y_true: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        rule: how thresholds are chosen.
        method: how scores are calibrated.
        samples: number of resamples of the units.
    """

    y_true: np.ndarray
    units: np.ndarray
    rule: ThresholdRule
    method: CalibrationMethod
    samples: int

    @classmethod
    def of(cls, examples: list[Example], rule: ThresholdRule, method: CalibrationMethod, samples: int) -> "Valid":
        """The rows of valid.

        Args:
            examples: the rows.
            rule: how thresholds are chosen.
            method: how scores are calibrated.
            samples: number of resamples.
        """
        labels, units = ([getattr(row, name) for row in examples] for name in ("label", "unit"))
        return cls(np.array(labels, dtype=bool), np.array(units), rule, method, samples)

    def resamples(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields blocks of resamples, and their row weights of shape (n_block, n_rows)."""
        return resampled_weights(self.units, self.samples, SEED)


@dataclass(frozen=True)
class Picks:
    """Slope and offset of the calibration, and the threshold, in each resample of valid, all of shape (samples,)."""

    slope: np.ndarray
    offset: np.ndarray
    threshold: np.ndarray


@dataclass(frozen=True, eq=False)
class System:
    """A system's scores of valid and what was chosen on them.

    Attributes:
        valid: the rows.
        log_odds: float of shape (n_rows,), the scores of these rows. For a combination: the sum of its parts'
            calibrated log-odds.
        calibration, threshold: as used.
        parts: the systems that a combination adds up.
    """

    valid: Valid
    log_odds: np.ndarray
    calibration: Calibration
    threshold: float
    parts: tuple["System", ...] = ()

    @cached_property
    def picks(self) -> Picks:
        """The same choices on each resample of valid's units."""
        blocks = [self.picked(weights, part) for part, weights in self.valid.resamples()]
        return Picks(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))

    def picked(self, weights: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Slopes, offsets and thresholds for some resamples.

        Args:
            weights: of valid's rows, shape (n_block, n_rows).
            part: which of the resamples they are.
        """
        valid = self.valid
        raw = self.raw(part)
        slope, offset = fit_calibrations(valid.y_true, raw, valid.method, weights)
        probability = expit(raw * slope[:, None] + offset[:, None])
        threshold = choose_thresholds(valid.y_true, probability, valid.rule, weights)
        return slope, offset, np.where(np.isinf(threshold), NO_ALARM, threshold)

    def raw(self, part: slice) -> np.ndarray:
        """The scores of valid before calibration, (1, n_rows); of a combination in each resample, (n_block, n_rows)."""
        if not self.parts:
            return self.log_odds[None]
        return sum_of_parts([(each.raw(part), each.picks) for each in self.parts], part)


def choose_on_valid(valid: Valid, log_odds: np.ndarray) -> System:
    """A system with calibration and threshold chosen on valid. log_odds: its scores there, shape (n_rows,).

    If no threshold keeps the rule's promise, the system raises no alarm.
    """
    return chosen(valid, log_odds, ())


def combine_on_valid(parts: tuple[System, ...]) -> System:
    """The sum of the parts' calibrated log-odds, which is calibrated itself. No part has a weight of its own."""
    log_odds = sum(part.calibration.log_odds(part.log_odds) for part in parts)
    return chosen(parts[0].valid, np.asarray(log_odds), parts)


def chosen(valid: Valid, log_odds: np.ndarray, parts: tuple[System, ...]) -> System:
    calibration = fit_calibration(valid.y_true, log_odds, valid.method)
    try:
        threshold = choose_threshold(valid.y_true, calibration.probability(log_odds), valid.rule)
    except UserError:
        threshold = NO_ALARM
    return System(valid, log_odds, calibration, threshold, parts)


def sum_of_parts(parts: list[tuple[np.ndarray, Picks]], part: slice) -> np.ndarray:
    """The sum of calibrated log-odds in some resamples, shape (n_block, n_rows).

    Args:
        parts: scores of shape (1 or n_block, n_rows), and the picks of the system that gave them.
        part: which of the resamples.
    """
    return np.sum([raw * picks.slope[part, None] + picks.offset[part, None] for raw, picks in parts], axis=0)
