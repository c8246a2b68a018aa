"""The decision: rare where nothing has changed, however many files there are, and sure where something has."""

import json

import numpy as np
import pytest

from stages.artifacts import write_json
from stages.drift.compare import FEATURES, MOST_NEW, Batch, Nulls, compare, compare_all, report
from stages.errors import UserError
from tests.unit.drift.made import OTHERS, batch, make_reference, mixed

DAYS = [batch(40, 1000 + day, f"day {day}") for day in range(40)]
OTHER = batch(40, 11, "other", words=OTHERS)


@pytest.fixture(scope="module")
def days(reference):
    return compare_all(reference, DAYS, 0.05)


def test_days_without_change_raise_no_alarm_though_single_p_values_are_small(days):
    """Without the correction for the number of tests this fails: one of 200 p-values is below 0.05."""
    p_values = np.array([test.p_value for day in days for test in day.tests.values()])
    assert len(p_values) == len(FEATURES) * len(DAYS)
    assert (p_values <= 0.05).sum() >= 3
    assert not any(day.alarm for day in days)


def test_p_values_of_unchanged_texts_are_those_of_chance(days):
    """All days are compared with one valid, so those of a feature move together: only their mean is held to a bound."""
    p_values = np.array([test.p_value for day in days for test in day.tests.values()])
    assert (p_values <= 0.05).mean() <= 0.1
    assert 0.3 <= (p_values <= 0.5).mean() <= 0.7


def test_the_correction_counts_the_compared_files_alone(reference):
    few = batch(20, 12, "few")
    alone, beside = (compare_all(reference, [OTHER, *others], 0.05)[0] for others in ([few], [few, *DAYS[:3]]))
    assert alone.tests["texts"].p_value * len(FEATURES) == pytest.approx(alone.p_value)
    assert beside.p_value == pytest.approx(4 * alone.p_value)


def test_many_files_can_still_raise_an_alarm(reference):
    found = compare_all(reference, [*DAYS[:3], OTHER], 0.005)
    assert [each.name for each in found if each.alarm] == ["other"]


def test_other_texts_and_a_fifth_of_them_raise_an_alarm(reference):
    nulls = Nulls(reference, 1999)
    other, fifth = (compare(nulls, each, len(FEATURES), 0.05) for each in (OTHER, mixed(DAYS[0], OTHER, 16)))
    assert other.alarm
    assert other.tests["texts"].p_value == 1 / 2000
    assert fifth.alarm


def test_other_scores_of_like_texts_raise_an_alarm(reference):
    moved = Batch("moved", DAYS[0].texts, DAYS[0].log_odds - 9)
    (found,) = compare_all(reference, [moved], 0.05)
    assert found.alarm
    assert min(found.tests, key=lambda name: found.tests[name].p_value) == "score"


def test_fewer_than_fifty_different_texts_are_not_compared(reference):
    some = batch(25, 13)
    texts = some.texts[:49]
    (found,) = compare_all(reference, [Batch("few", texts * 4, np.tile(some.log_odds[:49], 4))], 0.05)
    assert (found.texts, found.different, found.tests, found.alarm) == (196, 49, {}, False)
    (found,) = compare_all(reference, [some], 0.05)
    assert found.tests


def test_a_repeated_text_does_not_move_the_tests(reference):
    day = DAYS[0]
    again = Batch("again", day.texts + day.texts[:1] * 200, np.append(day.log_odds, [day.log_odds[0]] * 200))
    nulls = Nulls(reference, 1999)
    one, other = (compare(nulls, each, len(FEATURES), 0.05) for each in (day, again))
    assert one.tests["length"] == other.tests["length"]
    assert one.flagged != other.flagged  # the share is that of all texts


def test_many_texts_are_compared(reference):
    many = batch(MOST_NEW, 14)
    (found,) = compare_all(reference, [many], 0.05)
    assert found.texts == 2 * MOST_NEW
    assert not found.alarm


def test_the_reference_has_the_share_of_fraud_that_the_threshold_is_for():
    """Rare fraud, as the threshold expects it, is no drift. Without that share it is one."""
    rare = batch(150, 15, share=0.05)
    (expected,) = compare_all(make_reference(fraud_fraction=0.05), [rare], 0.05)
    (unexpected,) = compare_all(make_reference(), [rare], 0.05)
    assert expected.tests["score"].p_value > 0.01 > unexpected.tests["score"].p_value
    assert unexpected.alarm


def test_means_are_those_of_the_texts(reference):
    day = DAYS[0]
    (found,) = compare_all(reference, [day], 0.05)
    assert found.tests["length"].mean == pytest.approx(np.mean([len(text) for text in day.texts]))
    assert found.tests["score"].mean == pytest.approx(day.log_odds.mean())
    assert found.tests["score"].mean_on_valid == pytest.approx(reference.values["score"].mean())


def test_more_tests_than_draws_allow_are_refused(reference):
    with pytest.raises(UserError, match="compare fewer files, or raise --level"):
        compare_all(reference, DAYS[:11], 0.001)


def test_the_same_texts_get_the_same_report(reference):
    one, other = (json.dumps(report(reference, compare_all(reference, DAYS[:2], 0.05), 0.05)) for _ in range(2))
    assert one == other


def test_the_report_is_readable_json(reference, days, tmp_path):
    write_json(tmp_path / "drift.json", report(reference, [*days[:2]], 0.05))
    found = json.loads((tmp_path / "drift.json").read_text(encoding="utf-8"))
    day = found["files"]["day 0"]
    assert sum(day["scores"].values()) == pytest.approx(1)
    assert day["fraud"]["low"] <= day["fraud"]["share"] <= day["fraud"]["high"]
    assert set(day["tests"]) == set(FEATURES)
    assert (found["alarm"], found["files_compared"], found["level"]) == (False, 2, 0.05)
