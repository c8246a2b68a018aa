"""Texts beside valid: exact distances, how often alike texts are warned of, and that other texts are."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp

from stages.classifier.shift import (
    BIGRAMS_FILE,
    EDGES,
    FEWEST_ROWS,
    REFERENCE_FILE,
    Distribution,
    Shift,
    add_cells,
    all_bigrams,
    bigrams_of,
    describe_valid,
    measure,
    read_reference,
    write_reference,
)
from stages.errors import UserError
from stages.text.example import Example
from tests.conftest import ROOT


def sample(*names: str) -> list[Example]:
    """Texts of the sample; the unit is the case."""
    units: dict[str, int] = {}
    found = []
    for name in names:
        for line in (ROOT / "data/sample" / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            unit = units.setdefault(f"{name}:{row['group']}", len(units))
            found.append(Example(row["input"], bool(row["label"]), unit=unit))
    return found


def scores_of(examples: list[Example], rng: np.random.Generator) -> np.ndarray:
    """Log-odds of a classifier with errors. Two thirds of their noise differ between the rows of a unit."""
    shared = rng.normal(size=max(row.unit for row in examples) + 1)
    return np.array([2.4 * row.label - 1.2 + 0.6 * shared[row.unit] + 0.8 * rng.normal() for row in examples])


def reference_of(train: list[Example], valid: list[Example], scores: np.ndarray, fraud_fraction: float | None = None):
    return describe_valid([row.input for row in train], valid, scores, scores > 0, fraud_fraction)


def numbers(values) -> list[Example]:
    """Rows of `values` characters each, one a unit."""
    return [Example("字" * value, bool(n % 2), unit=n) for n, value in enumerate(values)]


def test_the_features_of_a_text():
    bigrams = all_bigrams(["abc", "CD"])
    assert len(bigrams) == 3  # ab, bc, cd
    found = measure(["ABABxy", "abcd", "转a", "", "转"], bigrams)
    assert found["length"].tolist() == [6, 4, 2, 0, 1]
    assert found["vocabulary"].tolist() == [1 / 4, 1, 0, 1, 1]  # ab, ba, bx, xy; a text without a pair has none unknown
    assert found["script"].tolist() == [1, 1, 0.5, 0, 0]
    assert measure(["a_[]^`Z{@é字1"], bigrams)["script"].tolist() == [2 / 12]
    assert measure(["ab", "a"], all_bigrams([]))["vocabulary"].tolist() == [0, 1]


def test_pairs_of_characters_hardly_share_a_hash():
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 20_000))) + "😀😁" + "".join(map(chr, range(0x20, 0x7F)))
    alike = characters.casefold()
    assert len(bigrams_of(characters)) == len(set(itertools.pairwise(alike))) > 20_000
    assert len(bigrams_of("\ud83d\udc4d")) == 1  # halves of a character, as broken JSON has them


@pytest.mark.parametrize("rows", [60, 400])
def test_the_distance_and_its_p_value_are_those_of_scipy(rows):
    rng = np.random.default_rng(rows)
    one, other = rng.integers(1, EDGES, 300), rng.integers(5, EDGES + 9, rows)
    reference = reference_of([], numbers(one), np.zeros(300))
    found = reference.compare(reference.count(["字" * length for length in other], None))["length"]
    expected = ks_2samp(one, other, method="asymp")
    assert found.distance == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert abs(found.here - found.on_valid) == pytest.approx(found.distance)
    compared = (other <= found.edge) if found.inclusive else (other < found.edge)
    assert found.here == pytest.approx(compared.mean())


def test_a_gap_between_two_values_of_valid_is_seen():
    """All texts of valid have one length, and all others a shorter one: no text is longer than valid's."""
    reference = reference_of([], numbers([50] * 100), np.zeros(100))
    found = reference.compare(reference.count(["字" * 30] * 100, None))["length"]
    assert (found.distance, found.edge, found.inclusive, found.here, found.on_valid) == (1, 50, False, 1, 0)


def test_of_many_values_at_most_two_quantiles_hide():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=2000), rng.normal(0.7, 1.5, 3000)
    feature = Distribution.of(one, np.ones(2000))
    gap = np.cumsum(feature.count(other)) / 3000 - np.cumsum(feature.shares)
    exact = ks_2samp(one, other).statistic
    assert exact - 2 / EDGES < np.abs(gap).max() <= exact
    assert len(feature.edges) == EDGES


def test_counts_of_windows_add_up():
    examples = sample("pool.jsonl")[:200]
    reference = reference_of(examples[:100], examples[100:], np.arange(100.0))
    texts, scores = [row.input for row in examples], np.linspace(-9, 120, 200)
    whole = {}
    for first in range(0, 200, 30):
        window = slice(first, first + 30)
        whole = add_cells(whole, reference.count(texts[window], scores[window]))
    assert whole == reference.count(texts, scores)
    assert {sum(cells) for cells in whole.values()} == {200}


def test_fewer_rows_than_the_rule_wants_are_not_compared():
    reference = reference_of([], numbers(range(1, 101)), np.zeros(100))
    for rows in (0, FEWEST_ROWS - 1):
        few = Shift(reference, reference.compare(reference.count(["字" * 900] * rows, np.zeros(rows))), 0.25)
        assert few.report() == {"flagged": 0.25, "flagged_on_valid": 0.0}
        assert not list(few.warning("x", "y"))
    assert reference.compare(reference.count(["字" * 900] * FEWEST_ROWS, None))["length"].shifted
    assert not reference.compare({})


@pytest.fixture(scope="module")
def halves() -> tuple[list[Example], list[Example]]:
    """Two halves of the sample by case, of rows in random order."""
    examples = sample("pool.jsonl", "pool-2.jsonl")
    half = np.random.default_rng(0).permutation(len({row.unit for row in examples})) % 2
    return [row for row in examples if half[row.unit]], [row for row in examples if not half[row.unit]]


@pytest.mark.parametrize("units", [20, 40, 150])
@pytest.mark.parametrize("fresh", [False, True])
def test_texts_like_those_of_valid_are_warned_of_less_than_once_in_a_hundred(halves, units, fresh):
    """Resamples of valid's own units, or other units of the same kind; valid has `units` units, the texts 30 to 300."""
    train, rest = halves
    rng = np.random.default_rng(units)
    rows_of = {name: np.flatnonzero([row.unit == name for row in rest]) for name in {row.unit for row in rest}}
    warned = 0
    for _ in range(10):
        names, scores = rng.permutation(sorted(rows_of)), scores_of(rest, rng)
        own = np.concatenate([rows_of[name] for name in names[:units]])
        reference = reference_of(train, [rest[row] for row in own], scores[own])
        values = measure([row.input for row in rest], reference.bigrams) | {"score": scores}
        pool = names[units:] if fresh else names[:units]
        for _ in range(50):
            drawn = np.concatenate([rows_of[name] for name in rng.choice(pool, rng.integers(30, 300))])
            cells = {name: reference.features[name].count(each[drawn]) for name, each in values.items()}
            warned += any(each.shifted for each in reference.compare(cells).values())
    assert warned < 5


@pytest.mark.parametrize(("own", "other"), [("pool.jsonl", "pool-2.jsonl"), ("pool-2.jsonl", "pool.jsonl")])
def test_the_two_files_of_the_sample_differ(own, other):
    """The first has short texts, hardly any English, and fewer pairs of characters."""
    examples, others = sample(own), sample(other)
    rng = np.random.default_rng(0)
    cut = rng.permutation(max(row.unit for row in examples) + 1)
    train, valid = ([row for row in examples if (cut[row.unit] % 4 == 0) == kept] for kept in (False, True))
    reference = reference_of(train, valid, scores_of(valid, rng))
    found = reference.compare(reference.count([row.input for row in others], scores_of(others, rng)))
    shifted = [name for name, each in found.items() if each.shifted]
    assert "length" in shifted
    assert ("vocabulary" in shifted) == (own == "pool.jsonl")  # the other one knows nearly all pairs
    assert "score" not in shifted
    lines = list(Shift(reference, found, 0.5).warning("predict: WARNING: new.jsonl", "Label some."))
    assert lines[0].startswith("predict: WARNING: new.jsonl: these texts differ from valid")
    assert [line.split(":")[0].strip() for line in lines[1:-2]] == shifted
    assert lines[-1] == "  Label some."


def test_texts_of_train_are_no_less_known_than_those_of_valid():
    examples = sample("pool.jsonl")
    reference = reference_of(examples[:320], examples[320:], np.zeros(320))
    found = reference.compare(reference.count([row.input for row in examples[:320]], None))
    assert found["vocabulary"].distance == 0
    assert not found["vocabulary"].shifted


def test_the_comparison_is_with_valid_at_the_share_of_fraud_that_the_threshold_is_for():
    rng = np.random.default_rng(0)
    valid = [Example("字字", n % 2 == 0, unit=n) for n in range(400)]
    scores = scores_of(valid, rng)
    new = [Example("字字", n % 20 == 0, unit=n) for n in range(2000)]  # 5 % fraud
    flags = {}
    for fraction in (None, 0.05):
        reference = reference_of(valid, valid, scores, fraction)
        flags[fraction] = reference.flagged
        assert reference.fraud_fraction == pytest.approx(fraction or 0.5)
        found = reference.compare(reference.count([row.input for row in new], scores_of(new, rng)))
        assert {name for name, each in found.items() if each.shifted} == ({"score"} if fraction is None else set())
    by_class = [np.mean(scores[first::2] > 0) for first in (1, 0)]  # fraud comes first
    assert flags[0.05] == pytest.approx(0.95 * by_class[0] + 0.05 * by_class[1])
    assert reference.effective_rows == pytest.approx(1 / (0.05**2 / 200 + 0.95**2 / 200))


def test_a_warning_says_what_differs_from_what_to_what():
    valid = numbers([20] * 50 + [40] * 50)
    reference = reference_of([], valid, np.repeat([-1.0, 1.0], 50))
    cells = reference.count(["字" * 20] * 95 + ["字" * 40] * 5, np.repeat([-1.0, 1.0], [98, 2]))
    found = reference.compare(cells)
    lines = list(Shift(reference, found, 0.02).warning("evaluate: WARNING: sms", "Do."))
    assert lines == [
        "evaluate: WARNING: sms: these texts differ from valid, on which the threshold was chosen, so it may not fit "
        "them:",
        "  length: 95.0% of these texts have at most 20 characters, 50.0% of valid",
        "  score: 98.0% of these texts have at most a probability of fraud of 0.269, 50.0% of valid",
        "  2.0% of these texts are called fraud, 50.0% of valid (with 50% fraud)",
        "  Do.",
    ]
    report = Shift(reference, found, None).report()
    assert report["length"].keys() == {"distance", "p_value", "shifted"}
    assert report["length"]["distance"] == pytest.approx(0.45)
    assert {name for name in found if report[name]["shifted"]} == {"length", "score"}


def test_the_files_hold_the_same_numbers_and_no_text(tmp_path):
    examples = sample("pool.jsonl")
    reference = reference_of(examples[:400], examples[400:], scores_of(examples[400:], np.random.default_rng(0)), 0.1)
    write_reference(tmp_path, reference)
    again = read_reference(tmp_path)
    assert again.bigrams.tolist() == reference.bigrams.tolist()
    assert replace(again, bigrams=reference.bigrams).__dict__ == reference.__dict__
    assert (tmp_path / REFERENCE_FILE).read_bytes().isascii()
    assert (tmp_path / BIGRAMS_FILE).stat().st_size < 4 * len(reference.bigrams) + 200


def test_a_folder_without_the_files_has_no_reference_and_a_damaged_one_is_refused(tmp_path):
    assert read_reference(tmp_path) is None
    write_reference(tmp_path, reference_of([], numbers(range(1, 101)), np.zeros(100)))
    whole = json.loads((tmp_path / REFERENCE_FILE).read_text())
    cut = whole | {"features": whole["features"] | {"length": {"edges": [1.0], "shares": [1.0]}}}
    for bad in (cut, {}, whole | {"features": {}}, whole | {"more": 1}):
        (tmp_path / REFERENCE_FILE).write_text(json.dumps(bad))
        with pytest.raises(UserError, match=r"reference.json and bigrams.safetensors can't be read.*dvc repro"):
            read_reference(tmp_path)
    (tmp_path / REFERENCE_FILE).write_text(json.dumps(whole))
    (tmp_path / BIGRAMS_FILE).write_bytes(b"no")
    with pytest.raises(UserError, match="SafetensorError"):
        read_reference(tmp_path)
