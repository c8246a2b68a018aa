"""A text is split into its sentences, and each is left out in turn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.classifier import sentences
from stages.classifier.reader import Reader
from stages.classifier.sentences import MOST_PIECES, Sentence, explain, split, without


def pieces(text: str) -> list[str]:
    return [text[start:end] for start, end in split(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["您好。", "我是客服！", "请转账？"],
        ["他说：“快转账！！”", "我没有。"],
        ["Dear sir. ", "Your account is locked! ", "Call us"],
        ["请打开 www.example.com/a?id=1;b=2 查看；", "共 3.5 元。"],
        ["甲: 你好\n", "乙: 请讲\n\n", "甲: 再见"],
        ["1. 先转账。", "2. 再等。"],
        ["恭喜中奖，", "请转账，", "谢谢"],
        ["只有一句"],
        ["。。！"],
        ["你好。 😀"],
        ["！！你好"],
        [""],
    ],
)
def test_sentences_end_at_chinese_and_english_marks(expected):
    assert pieces("".join(expected)) == expected


TEXTS = st.text(st.sampled_from("甲a1 。.!！?；;，,：\n”)") | st.characters(), max_size=300)


@given(TEXTS)
def test_the_pieces_are_the_text_and_not_too_many(text):
    assert "".join(pieces(text)) == text
    assert 1 <= len(split(text * 40)) <= MOST_PIECES


def count_transfers(texts: list[str]) -> np.ndarray:
    return np.array([text.count("转账") for text in texts], dtype=float)


def test_an_effect_is_the_score_with_the_sentence_less_that_without_it():
    (found,) = explain(count_transfers, ["您好。请转账，转账！再见"])
    assert found == [
        Sentence("您好。", 0, 3, 0.0),
        Sentence("请转账，转账！", 3, 10, 2.0),
        Sentence("再见", 10, 12, 0.0),
    ]


def test_several_texts_are_scored_together_and_many_in_parts(monkeypatch):
    calls: list[int] = []

    def score(texts: list[str]) -> np.ndarray:
        calls.append(len(texts))
        return count_transfers(texts)

    texts = [f"第{n}。转账。" for n in range(6)]
    whole = list(explain(score, texts))
    assert calls == [6 * 3]
    assert [each[1].effect for each in whole] == [1.0] * 6
    calls.clear()
    monkeypatch.setattr(sentences, "WINDOW", 7)
    assert list(explain(score, texts)) == whole
    assert calls == [9, 9]
    assert list(explain(score, [])) == []


ROOM = 12
SIDES = {
    "right": lambda text: text[:ROOM],
    "left": lambda text: text[max(0, len(text) - ROOM) :],
    "middle": lambda text: text if len(text) <= ROOM else text[: ROOM // 2] + "…" + text[len(text) - ROOM // 2 :],
}


def score_read(side: str, longest: list[int]):
    """A score that reads ROOM characters, in their order, and notes how long the texts are."""

    def score(texts: list[str]) -> np.ndarray:
        longest.append(max(map(len, texts)))
        return np.array([sum(ord(c) * 1.01**at for at, c in enumerate(SIDES[side](text))) for text in texts])

    return score


@given(TEXTS, st.sampled_from(sorted(SIDES)))
def test_what_is_beyond_the_cut_is_one_sentence_without_effect_and_never_scored(text, side):
    longest: list[int] = []
    score = score_read(side, longest)
    (found,) = explain(score, [text], Reader(len, ROOM, side))
    assert "".join(each.text for each in found) == text
    assert [text[each.start : each.end] for each in found] == [each.text for each in found]
    assert longest == [min(len(text), 2 * ROOM)]
    whole, cut = score([text])[0], len(text) - ROOM
    beyond = {"right": ROOM, "left": 0, "middle": ROOM // 2}[side] if cut > 0 else -1
    assert [each.end - each.start for each in found if each.start == beyond] == ([cut] if cut > 0 else [])
    for each in found:
        rest = whole if each.start == beyond else score([without(text, (each.start, each.end))])[0]
        assert each.effect == whole - rest


def test_a_text_that_fits_is_explained_as_without_a_cut():
    text = "您好。请转账，转账！再见"
    assert list(explain(count_transfers, [text], Reader(len, len(text), "middle"))) == list(
        explain(count_transfers, [text])
    )


@pytest.mark.parametrize("side", SIDES)
def test_a_very_long_text_is_hardly_read(side):
    read = []

    def count(text: str) -> int:
        read.append(len(text))
        return len(text) // 2

    (found,) = explain(score_read(side, []), ["转账。" * 1_000_000], Reader(count, ROOM, side))
    assert len(found) < 2 * ROOM
    assert sum(read) < 100 * ROOM
