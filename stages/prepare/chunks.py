"""Dialogues cut into labelled chunks of whole utterances."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, assert_never


@dataclass(frozen=True)
class Utterance:
    """What one speaker said, with the name in front, whether it is fraudulent, and the line where it was read."""

    text: str
    is_fraud: bool
    line: int


@dataclass
class Dialogue:
    """The utterances of a case in the order of the file.

    first_flagged: the line of the first row that is flagged as fraud, also if its text was rejected.
    """

    utterances: list[Utterance] = field(default_factory=list)
    first_flagged: int | None = None


def cut_chunks(utterances: list[Utterance], sizes: list[int]) -> Iterator[tuple[list[Utterance], int]]:
    """Yields each chunk and the size in characters that cut it. A chunk of several sizes comes with the smallest."""
    seen: set[tuple[int, int]] = set()
    for size in sorted(sizes):
        for chunk in chunks_of_size(utterances, size):
            place = chunk[0].line, chunk[-1].line
            if place not in seen:
                seen.add(place)
                yield chunk, size


def chunks_of_size(utterances: list[Utterance], characters: int) -> Iterator[list[Utterance]]:
    """Yields runs of whole utterances of at most `characters`, line ends included. A longer one stands alone."""
    chunk: list[Utterance] = []
    length = 0
    for utterance in utterances:
        if chunk and length + 1 + len(utterance.text) > characters:
            yield chunk
            chunk, length = [], 0
        length += len(utterance.text) + bool(chunk)
        chunk.append(utterance)
    if chunk:
        yield chunk


def is_fraud(chunk: list[Utterance], dialogue: Dialogue, rule: Literal["any_line", "from_first_line"]) -> bool:
    """The label of a chunk by a rule.

    any_line: an utterance in the chunk is flagged. from_first_line: the chunk ends at or after the first flagged
    utterance of the dialogue.
    """
    if rule == "any_line":
        return any(utterance.is_fraud for utterance in chunk)
    if rule != "from_first_line":
        assert_never(rule)
    return dialogue.first_flagged is not None and chunk[-1].line >= dialogue.first_flagged
