"""Which sentences of a text moved its score: each is left out in turn, and the rest is scored."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stages.model.scoring import WINDOW

MOST_PIECES = 40  # of a text; each costs as much as the text itself
# What ends a sentence, with the quotes and blanks after it. In 3.5 and example.com?a=1 the ASCII marks end none.
CLOSING = r"[”’」』）】\"')\]]*\s*"
END = re.compile(rf"(?:[。！？；…\n]|[.!?;](?![A-Za-z0-9/=&_-]))+{CLOSING}")
CLAUSE_END = re.compile(rf"(?:[，、：\n]|[,:](?![0-9/]))+{CLOSING}")

Span = tuple[int, int]  # first character and end


@dataclass(frozen=True)
class Sentence:
    """A piece of a text.

    text: as it is written, with the blanks behind it. start, end: its place in the whole text, in characters.
    effect: log-odds of fraud of the whole text minus those of the text without the piece. Above 0 speaks for fraud.
    """

    text: str
    start: int
    end: int
    effect: float


def explain(score: Callable[[list[str]], np.ndarray], texts: Sequence[str]) -> Iterator[list[Sentence]]:
    """Yields the sentences of each text. All that is needed of several texts is scored together.

    Args:
        score: calibrated log-odds of fraud, float of shape (n,), of n texts.
        texts: as they were given.
    """
    waiting: list[tuple[str, list[Span]]] = []
    for text in texts:
        waiting.append((text, split(text)))
        if sum(len(spans) + 1 for _, spans in waiting) >= WINDOW:
            yield from effects(score, waiting)
            waiting = []
    yield from effects(score, waiting)


def effects(
    score: Callable[[list[str]], np.ndarray], texts: Sequence[tuple[str, list[Span]]]
) -> Iterator[list[Sentence]]:
    """Yields the sentences of each text, from one call of `score`. texts: each with the spans of its pieces."""
    variants = [each for text, spans in texts for each in (text, *(without(text, span) for span in spans))]
    log_odds = iter(score(variants).tolist() if variants else ())
    for text, spans in texts:
        whole = next(log_odds)
        yield [Sentence(text[start:end], start, end, whole - next(log_odds)) for start, end in spans]


def without(text: str, span: Span) -> str:
    """The text without a piece. The lines before and after it stay apart, since a name may open the next one.

    >>> without("A: hello. Pay\\nB: no", (10, 14))
    'A: hello. \\nB: no'
    """
    before, piece, after = text[: span[0]], text[slice(*span)], text[span[1] :]
    apart = "\n" if piece.endswith("\n") and before and not before.endswith("\n") else ""
    return before + apart + after


def split(text: str) -> list[Span]:
    """Spans of a text's sentences; joined they give the text. A text of one sentence is split at its commas.

    Pieces without a letter, such as a number in a list, belong to the next. Neighbours of a long text are joined, so
    that there are at most MOST_PIECES.

    >>> [("您好。验证码是 3.5！" + "Call us.")[slice(*span)] for span in split("您好。验证码是 3.5！Call us.")]
    ['您好。', '验证码是 3.5！', 'Call us.']
    """
    spans = cut(text, END)
    if len(spans) == 1:
        spans = cut(text, CLAUSE_END)
    return joined(spans, len(text) / MOST_PIECES)


def cut(text: str, ends: re.Pattern[str]) -> list[Span]:
    """Spans between the ends, those without a letter joined with the next, or at the end of the text the one before."""
    spans: list[Span] = []
    start = 0
    for end in [*(match.end() for match in ends.finditer(text)), len(text)]:
        if any(map(str.isalpha, text[start:end])):
            spans.append((start, end))
            start = end
    if not spans:
        return [(0, len(text))]
    return [*spans[:-1], (spans[-1][0], len(text))]


def joined(spans: list[Span], least: float) -> list[Span]:
    """Joins neighbours until each but the last has at least so many characters.

    >>> joined([(0, 1), (1, 2), (2, 9), (9, 10)], 2)
    [(0, 2), (2, 9), (9, 10)]
    """
    found: list[Span] = []
    for start, end in spans:
        if found and found[-1][1] - found[-1][0] < least:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found
