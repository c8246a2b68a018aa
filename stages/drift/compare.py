"""The tests of one set of new texts, and one decision over all of them.

Each feature is compared by one distance, and its p-value is the share of draws from the reference itself that are as
far away. A draw takes whole units. So the p-values hold although texts of a unit resemble each other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.special import expit

from stages.classifier.shift import FEWEST_ROWS, ONE_SIDED, Distribution, cells_of, measure
from stages.drift.draws import different, drawn_rows, p_value
from stages.drift.reference import SEED, Reference
from stages.drift.share import FraudShare, estimate
from stages.drift.texts import TextGap, TextTest
from stages.errors import UserError

MOST_NEW = 1000  # of more new texts, so many are tested: with more, differences that matter to nobody raise an alarm
LEAST_DRAWS = 1999
MOST_DRAWS = 100_000
BINS = 10  # of the score histogram
FEATURES = ("texts", "length", "vocabulary", "script", "score")


@dataclass(frozen=True)
class Finding:
    """What a test found.

    Attributes:
        distance: of new texts from the reference.
        expected: its mean over draws.
        p_value: of this test alone.
        mean, mean_on_valid: of the feature. None for the two-sample classifier.
    """

    distance: float
    expected: float
    p_value: float
    mean: float | None = None
    mean_on_valid: float | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """A set of new texts beside the reference.

    Attributes:
        name: of the file.
        texts, different: how many there are, and how many of them differ.
        tests: by feature; empty if there are too few texts.
        p_value: of the smallest p-value, corrected for all tests of the run.
        alarm: whether it is at most the level.
        flagged: the share of texts that are called fraud. None if there are no texts.
        scores: share of texts by bin of probability, float of shape (BINS,). 0 if there are no texts.
        fraud: the estimated share of fraud. None if there are too few texts.
        gap: what the two-sample classifier found. None if there are too few texts.
        auc_by_chance: mean and 97.5 % point of its AUC over draws of train.
    """

    name: str
    texts: int
    different: int
    tests: dict[str, Finding]
    p_value: float | None
    alarm: bool
    flagged: float | None
    scores: np.ndarray
    fraud: FraudShare | None = None
    gap: TextGap | None = None
    auc_by_chance: tuple[float, float] = (math.nan, math.nan)


@dataclass(frozen=True)
class Batch:
    """New texts as the classifier reads them, and their calibrated log-odds, float of shape (n,)."""

    name: str
    texts: list[str]
    log_odds: np.ndarray


def number_of_tests(batches: Sequence[Batch]) -> int:
    """How many p-values the run has: the more there are, the smaller one must be to count."""
    return len(FEATURES) * sum(len(different(batch.texts)) >= FEWEST_ROWS for batch in batches)


def compare_all(reference: Reference, batches: Sequence[Batch], level: float) -> list[Comparison]:
    """Compares each set of texts.

    Args:
        reference: what they are compared with.
        batches: the sets.
        level: how often a run may raise an alarm though nothing has changed.

    Raises UserError if so many tests at that level need more than MOST_DRAWS draws.
    """
    tests = number_of_tests(batches)
    draws = max(LEAST_DRAWS, math.ceil(2 * tests / level))  # so that the smallest p-value can raise an alarm
    if draws > MOST_DRAWS:
        raise UserError(
            f"{tests // len(FEATURES)} files at --level {level:g} need {draws:,} draws; expected at most "
            f"{MOST_DRAWS:,}: compare fewer files, or raise --level"
        )
    nulls = Nulls(reference, draws)
    return [compare(nulls, batch, tests, level) for batch in batches]


class Nulls:
    """Distances by chance alone, by number of rows. Files of one size share them."""

    def __init__(self, reference: Reference, draws: int):
        self.reference, self.draws = reference, draws
        self.text_test = TextTest(reference.train, reference.train_units, SEED)
        self.distributions = {
            name: Distribution.of(values, np.ones(len(values))) for name, values in reference.values.items()
        }
        self.of_texts = cache(lambda rows: self.text_test.by_chance(rows, draws))
        self.of_features = cache(self.feature_distances)

    def feature_distances(self, rows: int) -> dict[str, np.ndarray]:
        """By feature the distances of draws of `rows` rows of valid from another draw of all of it: (draws,) each.

        Both are drawn: valid is a sample, too.
        """
        units, rng = self.reference.units, np.random.default_rng(SEED)
        one, other = (
            np.stack([np.bincount(drawn, minlength=len(units)) for drawn in drawn_rows(units, size, self.draws, rng)])
            for size in (rows, len(units))
        )
        found = {}
        for name, values in self.reference.values.items():
            edges, shares = self.distributions[name].edges, self.distributions[name].shares
            member = np.eye(len(shares))[cells_of(np.array(edges), values)]
            found[name] = distances(name, one @ member / rows, other @ member / len(units))
        return found


def distances(name: str, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distances, shape (draws,).

    Args:
        name: of the feature.
        here, there: shares by cell, shape (draws, cells).
    """
    gap = np.cumsum(here - there, axis=1)
    return (gap if name in ONE_SIDED else np.abs(gap)).max(axis=1)


def compare(nulls: Nulls, batch: Batch, tests: int, level: float) -> Comparison:
    """Compares one set.

    Args:
        nulls: distances by chance, with the reference.
        batch: the set.
        tests: how many p-values the run has.
        level: how often a run may raise an alarm though nothing has changed.
    """
    reference = nulls.reference
    rows = different(batch.texts)
    fraud = expit(batch.log_odds) >= reference.selected.threshold
    flagged = float(fraud.mean()) if len(fraud) else None
    scores = histogram(batch.log_odds)
    if len(rows) < FEWEST_ROWS:
        return Comparison(batch.name, len(batch.texts), len(rows), {}, None, False, flagged, scores)
    rng = np.random.default_rng(SEED)
    some = np.sort(rng.permutation(rows)[: tested_rows(len(rows))])
    found = compare_features(nulls, [batch.texts[row] for row in some], batch.log_odds[some])
    read = rng.permutation(some)[: nulls.text_test.most_rows]
    gap = nulls.text_test.compare([batch.texts[row] for row in read])
    gaps, aucs = nulls.of_texts(len(read))
    found["texts"] = Finding(gap.gap, float(gaps.mean()), p_value(gap.gap, gaps))
    corrected = min(1.0, tests * min(test.p_value for test in found.values()))
    return Comparison(
        batch.name,
        len(batch.texts),
        len(rows),
        {name: found[name] for name in FEATURES},
        corrected,
        corrected <= level,
        flagged,
        scores,
        estimate(reference, rng.permutation(batch.log_odds)[:MOST_NEW]),
        gap,
        (float(aucs.mean()), float(np.quantile(aucs, 0.975))),
    )


def tested_rows(rows: int) -> int:
    """How many of so many texts are tested: few sizes, so that files share their draws.

    >>> [tested_rows(rows) for rows in (50, 158, 449, 30_000)]
    [50, 150, 400, 1000]
    """
    return min(MOST_NEW, rows - rows % (10 if rows < 200 else 50))


def compare_features(nulls: Nulls, texts: list[str], log_odds: np.ndarray) -> dict[str, Finding]:
    """Compares length, vocabulary, script and score with valid.

    Args:
        nulls: distances by chance.
        texts: n texts.
        log_odds: theirs, float of shape (n,).
    """
    tests = {}
    for name, values in (measure(texts, nulls.reference.bigrams) | {"score": log_odds}).items():
        known = nulls.distributions[name]
        here = np.array(known.count(values)) / len(values)
        distance = float(distances(name, here[None], np.array(known.shares)[None])[0])
        by_chance = nulls.of_features(len(values))[name]
        tests[name] = Finding(
            distance,
            float(by_chance.mean()),
            p_value(distance, by_chance),
            float(values.mean()),
            float(nulls.reference.values[name].mean()),
        )
    return tests


def histogram(log_odds: np.ndarray) -> np.ndarray:
    """The share of texts in each tenth of the probability, float of shape (BINS,). 0 if there are no texts."""
    return np.histogram(expit(log_odds), BINS, (0, 1))[0] / max(1, len(log_odds))


def report(reference: Reference, compared: Sequence[Comparison], level: float) -> dict[str, Any]:
    """The content of drift.json.

    Args:
        reference: what the texts were compared with.
        compared: the sets.
        level: of an alarm.
    """
    on_valid = histogram(reference.values["score"])
    return {
        "alarm": any(each.alarm for each in compared),
        "level": level,
        "files_compared": sum(bool(each.tests) for each in compared),
        "valid": {
            "rows": len(reference.units),
            "flagged": float((expit(reference.values["score"]) >= reference.selected.threshold).mean()),
            "scores": bins(on_valid),
            "promised": dict(reference.selected.promised),
        },
        "files": {each.name: report_one(each) for each in compared},
    }


def report_one(each: Comparison) -> dict[str, Any]:
    values: dict[str, Any] = {
        "texts": each.texts,
        "different_texts": each.different,
        "compared": bool(each.tests),
        "alarm": each.alarm,
        "p_value": each.p_value,
        "flagged": each.flagged,
        "scores": bins(each.scores),
        "tests": {name: vars(test) for name, test in each.tests.items()},
        "fraud": vars(each.fraud) if each.fraud else None,
    }
    if each.gap:
        mean, high = each.auc_by_chance
        values["classifier"] = {"auc": each.gap.auc, "auc_by_chance": mean, "auc_by_chance_high": high}
        values["ngrams"] = each.gap.ngrams
    return values


def bins(shares: np.ndarray) -> dict[str, float]:
    """Shares by the lower end of their bin."""
    return {f"{number / BINS:.1f}": float(share) for number, share in enumerate(shares)}
