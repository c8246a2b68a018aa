"""What a model reads of a text that is longer than its prompt has room for."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

Span = tuple[int, int]  # first character and end


@dataclass(frozen=True)
class Reader:
    """Finds where texts are cut, without reading much beyond.

    count: the number of tokens of a text. room: how many of them are read. side: prompt.truncation_side.
    """

    count: Callable[[str], int]
    room: int
    side: str

    def left_out(self, text: str, room: int) -> Span:
        """The characters that are cut from a text to `room` tokens, give or take one. An empty span at its end if it
        fits.

        >>> Reader(len, 4, "middle").left_out("abcdefgh", 4)
        (2, 6)
        """
        length = len(text)
        if self.shortest(lambda size: text[:size], length + 1, room + 1) > length:
            return length, length
        head = {"right": room, "left": 0, "middle": room - room // 2}[self.side]
        start = self.shortest(lambda size: text[:size], length, head)
        end = length - self.shortest(lambda size: text[length - size :], length, room - head)
        return start, max(start, end)

    def shortest(self, part: Callable[[int], str], most: int, tokens: int) -> int:
        """The least number of characters that make so many tokens; `most` if fewer don't.

        Args:
            part: so many characters of a text, from its start or its end.
            most: the answer is at most this.
            tokens: how many.
        """
        high = min(most, tokens)
        while high < most and self.count(part(high)) < tokens:
            high = min(most, 2 * high)
        return bisect_left(range(high), tokens, key=lambda size: self.count(part(size)))
