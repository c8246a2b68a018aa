"""The estimated share of fraud."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from stages.drift.share import estimate, most_likely
from tests.unit.drift.made import PROMISED, batch, make, record


def em(log_odds, prior):
    """Saerens et al. (2002) as they write it."""
    share, before = 0.5, expit(log_odds)
    for _ in range(20_000):
        fraud, harmless = before * share / prior, (1 - before) * (1 - share) / (1 - prior)
        share = (fraud / (fraud + harmless)).mean()
    return share


def test_the_share_is_that_of_expectation_maximization():
    log_odds = np.random.default_rng(0).normal(0.3, 2, 200)
    ratio = (log_odds - logit(0.4))[None]
    assert most_likely(ratio, np.ones((1, 200)))[0] == pytest.approx(em(log_odds, 0.4), abs=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_interval_holds_the_share(reference, share):
    held = []
    for seed in range(12):
        rows, scores = make(150, 100 + seed, share=share)
        found = estimate(reference, scores)
        truth = np.mean([row.label for row in rows])
        held.append(found.low - 0.02 <= truth <= found.high + 0.02)
        assert found.low <= found.share <= found.high
    assert np.mean(held) >= 0.8


def test_precision_at_the_promised_share_is_the_promised_one(reference):
    found = estimate(reference, batch(200, 7).log_odds)
    odds = found.share / (1 - found.share) * PROMISED["precision"] / (1 - PROMISED["precision"])
    assert found.precision == pytest.approx(odds / (1 + odds))  # promised at a share of one half
    assert found.precision_low < found.precision < found.precision_high


def test_rarer_fraud_means_less_precision(reference):
    rare, common = (estimate(reference, batch(200, 8, share=share).log_odds) for share in (0.05, 0.5))
    assert rare.share < 0.2 < common.share
    assert rare.precision < common.precision


def test_without_alarms_on_valid_there_is_no_precision(reference):
    never = replace(reference, selected=record(promised=PROMISED | {"precision": 0.0, "recall": 0.0}))
    assert estimate(never, batch(50, 9).log_odds).precision is None


def test_without_both_classes_there_is_no_estimate(reference):
    one = replace(reference, labels=np.ones_like(reference.labels))
    assert estimate(one, batch(50, 9).log_odds) is None
