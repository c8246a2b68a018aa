"""Pairs of similar texts are those of the plain definition."""

import random

import pytest

from stages.prepare.similar import find_similar
from tests.unit.prepare.related import alike, related_texts
from tests.unit.prepare.tables import (
    PREPARE,
)


@pytest.mark.parametrize("seed", range(30))
def test_the_pairs_found_are_those_of_the_definition(seed):
    texts = related_texts(random.Random(seed), 60)
    found = find_similar(texts, PREPARE.near_duplicate, PREPARE.containment, PREPARE.contained_characters)
    edges = {frozenset(pair) for pair in zip(found.one.tolist(), found.other.tolist(), strict=True)}
    for row, one in enumerate(texts):
        for column, other in enumerate(texts[:row]):
            a, b = int(found.text[row]), int(found.text[column])
            assert (a == b or frozenset((a, b)) in edges) == alike(one, other), (one, other)
