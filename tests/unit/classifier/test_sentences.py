"""A text is split into its sentences, and each is left out in turn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.classifier import sentences
from stages.classifier.sentences import MOST_PIECES, Sentence, explain, split


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
