"""Which sentences of a text moved its score: each is left out in turn, and the rest is scored."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from stages.classifier.reader import Reader, Span
from stages.model.scoring import WINDOW

MOST_PIECES = 40  # of a text; each costs as much as the text itself
# What ends a sentence, with the quotes and blanks after it. In 3.5 and example.com?a=1 the ASCII marks end none.
CLOSING = r"[”’」』）】\"')\]]*\s*"
END = re.compile(rf"(?:[。！？；…\n]|[.!?;](?![A-Za-z0-9/=&_-]))+{CLOSING}")
CLAUSE_END = re.compile(rf"(?:[，、：\n]|[,:](?![0-9/]))+{CLOSING}")


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


@dataclass(frozen=True)
class Split:
    """A text with the spans of its pieces.

    Attributes:
        text: the whole text.
        far: what is so far beyond the cut that it isn't scored: no piece is so long that it would come into reach.
        unread: what the model doesn't read.
        spans: of the pieces of what it reads, in `scored`.
    """

    text: str
    far: Span
    unread: Span
    spans: list[Span]

    @classmethod
    def of(cls, text: str, reader: Reader | None) -> "Split":
        """Splits what is read of a text. reader: where long texts are cut; None if all of them is read."""
        start, end = reader.left_out(text, 2 * reader.room) if reader else (len(text), len(text))
        scored = text[:start] + text[end:]
        cut_start, cut_end = reader.left_out(scored, reader.room) if reader else (len(scored), len(scored))
        head, tail = scored[:cut_start], scored[cut_end:]
        most = MOST_PIECES // 2 if head and tail else MOST_PIECES
        spans = split(head, most) if head or not tail else []
        spans += [(cut_end + first, cut_end + last) for first, last in split(tail, most)] if tail else []
        return cls(text, (start, end), (cut_start, cut_end + end - start), spans)

    @property
    def scored(self) -> str:
        return self.text[: self.far[0]] + self.text[self.far[1] :]

    def variants(self) -> list[str]:
        """The texts to score: whole, and without each piece."""
        scored = self.scored
        return [scored, *(without(scored, span) for span in self.spans)]

    def sentences(self, log_odds: Sequence[float]) -> list[Sentence]:
        """All pieces in order, with what isn't read as one. log_odds: of the variants."""
        whole, *others = log_odds
        found = []
        for span, other in zip(self.spans, others, strict=True):
            moved = self.far[1] - self.far[0] if span[0] >= self.far[0] else 0
            start, end = (place + moved for place in span)
            found.append(Sentence(self.text[start:end], start, end, whole - other))
        start, end = self.unread
        if start < end:
            found.append(Sentence(self.text[start:end], start, end, 0.0))
        return sorted(found, key=lambda sentence: sentence.start)


def explain(
    score: Callable[[list[str]], np.ndarray], texts: Sequence[str], reader: Reader | None = None
) -> Iterator[list[Sentence]]:
    """Yields the sentences of each text. All that is needed of several texts is scored together.

    Args:
        score: calibrated log-odds of fraud, float of shape (n,), of n texts.
        texts: as they were given.
        reader: where long texts are cut; None if all of them is read.
    """
    waiting: list[Split] = []
    for text in texts:
        waiting.append(Split.of(text, reader))
        if sum(len(each.spans) + 1 for each in waiting) >= WINDOW:
            yield from effects(score, waiting)
            waiting = []
    yield from effects(score, waiting)


def effects(score: Callable[[list[str]], np.ndarray], texts: Sequence[Split]) -> Iterator[list[Sentence]]:
    """Yields the sentences of each text, from one call of `score`."""
    variants = [variant for each in texts for variant in each.variants()]
    log_odds = iter(score(variants).tolist() if variants else ())
    for each in texts:
        yield each.sentences(list(islice(log_odds, len(each.spans) + 1)))


def without(text: str, span: Span) -> str:
    """The text without a piece. The lines before and after it stay apart, since a name may open the next one.

    >>> without("A: hello. Pay\\nB: no", (10, 14))
    'A: hello. \\nB: no'
    """
    before, piece, after = text[: span[0]], text[slice(*span)], text[span[1] :]
    apart = "\n" if piece.endswith("\n") and before and not before.endswith("\n") else ""
    return before + apart + after


def split(text: str, most: int = MOST_PIECES) -> list[Span]:
    """Spans of a text's sentences; joined they give the text. A text of one sentence is split at its commas.

    Pieces without a letter, such as a number in a list, belong to the next. Neighbours of a long text are joined, so
    that there are at most `most`.

    >>> [("您好。验证码是 3.5！" + "Call us.")[slice(*span)] for span in split("您好。验证码是 3.5！Call us.")]
    ['您好。', '验证码是 3.5！', 'Call us.']
    """
    spans = cut(text, END)
    if len(spans) == 1:
        spans = cut(text, CLAUSE_END)
    return joined(spans, len(text) / most)


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
