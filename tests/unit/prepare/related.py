"""Texts that are copies, edits or pieces of others, and the plain definition of two that are similar."""

from functools import lru_cache

from stages.prepare.similar import SHINGLE, normalize
from tests.unit.prepare.tables import PREPARE


@lru_cache(1000)
def shingle_set(text):
    text = normalize(text)
    return {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)}


def alike(one, other, prepare=PREPARE):
    """The plain definition, pair by pair."""
    if normalize(one) == normalize(other):
        return True
    a, b = shingle_set(one), shingle_set(other)
    if not a or not b:
        return False
    shared = len(a & b)
    near = shared / len(a | b) >= prepare.near_duplicate - 1e-9
    long_enough = [len(normalize(text)) >= prepare.contained_characters for text in (one, other)]
    inside = [shared / len(a) >= prepare.containment - 1e-9, shared / len(b) >= prepare.containment - 1e-9]
    return near or any(long and much for long, much in zip(long_enough, inside, strict=True))


def related_texts(rng, count):
    """Random texts, some of them copies, edits, pieces or compounds of others."""
    texts = ["".join(rng.choices("甲乙丙丁戊己庚辛壬癸abcde", k=rng.randint(3, 90)))]
    while len(texts) < count:
        old = rng.choice(texts)
        start = rng.randrange(len(old))
        texts.append(
            rng.choice(
                [
                    "".join(rng.choices("甲乙丙丁戊己庚辛壬癸abcde", k=rng.randint(3, 90))),
                    old,
                    f" {old.upper()}\n",
                    old[:start] + "改" + old[start + 1 :],
                    old[start:],
                    old + rng.choice(texts),
                ]
            )
        )
    return texts
