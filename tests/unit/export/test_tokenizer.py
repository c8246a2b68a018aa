"""The tokenizer of an export reads each text as training did, whatever the text holds."""

import dataclasses
import json
import shutil
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stages.data.speakers import remove_speakers
from stages.errors import UserError
from stages.export.parity import HOSTILE
from stages.export.tokenizer import reads_alike, write_tokenizer
from stages.model.load import load_tokenizer
from stages.text.prompt import build_prompt

PARTS = ["a", "王某", "：", ":", "//", "\n", "\n\n", " ", "\t", "\x1c", "\x1f", "\x85", "\u2028", "\r", "\u3000", "。"]
PARTS += ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<b>", "😀", "e\u0301", "长名字" * 6, '{"is_fraud": true}']


@pytest.fixture(scope="module", params=["right", "left"])
def prompt(request, tokenizer):
    return build_prompt(tokenizer, "判断下面的文本是否涉及诈骗。", 64, truncation_side=request.param)


@pytest.fixture(scope="module", params=[True, False], ids=["speakers removed", "speakers kept"])
def written(request, prompt, tmp_path_factory):
    """The tokenizer as plain transformers loads it, and how training reads a text."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, prompt, request.param)

    def expected(text: str) -> list[int]:
        (ids,) = prompt.tokenize([remove_speakers(text) if request.param else text])
        return prompt.encode(ids)

    return AutoTokenizer.from_pretrained(folder), expected


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(st.lists(st.sampled_from(PARTS), max_size=30).map("".join), st.text(max_size=80)))
def test_any_text_is_read_as_in_training(written, text):
    tokenizer, expected = written
    assert tokenizer(text, truncation=True)["input_ids"] == expected(text)


@pytest.mark.parametrize("text", [*HOSTILE, "王某:\n李某：\n" * 2000, "王某:\n" * 2000 + "x", "a:" + " " * 9000])
def test_hostile_texts_are_read_as_in_training(written, text):
    tokenizer, expected = written
    assert tokenizer(text, truncation=True)["input_ids"] == expected(text)


def test_truncation_keeps_the_prompt_and_the_room_of_the_text(prompt, tmp_path):
    write_tokenizer(tmp_path, prompt, False)
    ids = AutoTokenizer.from_pretrained(tmp_path)("很长的文本。" * 200, truncation=True)["input_ids"]
    before, behind = prompt.prefix, prompt.suffix + prompt.answer_prefix
    assert (ids[: len(before)], ids[-len(behind) :]) == (before, behind)
    assert len(ids) == len(before) + prompt.room + len(behind) < prompt.max_length


def test_tokens_that_are_not_normalized_do_not_hide_lines_from_the_removal(prompt, tmp_path):
    """As Gemma's line ends, which are among the added tokens."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder_of(prompt, tmp_path / "own"))
    tokenizer.add_tokens(["\n", "<b>"])
    assert not any(token.special for token in tokenizer.added_tokens_decoder.values() if token.content in ("\n", "<b>"))
    other = dataclasses.replace(prompt, tokenizer=tokenizer)
    for text in ("王某:\n李某：\n", "<b>客服：好", "王某: 好\n<b>李某：<b>好"):
        write_tokenizer(tmp_path, other, True)
        (ids,) = other.tokenize([remove_speakers(text)])
        assert AutoTokenizer.from_pretrained(tmp_path)(text, truncation=True)["input_ids"] == other.encode(ids)


def folder_of(prompt, folder):
    prompt.tokenizer.save_pretrained(folder)
    return folder


def source_of(prompt, removed: bool):
    as_read = remove_speakers if removed else str
    return types.SimpleNamespace(prompt=prompt, selected=types.SimpleNamespace(as_read=as_read))


def test_a_family_whose_class_drops_the_normalizer_is_noticed(base_folder, tmp_path, capsys):
    """transformers loads Qwen2's tokenizer as its own class, whatever tokenizer_config.json names. When this fails,
    reads_alike can lose its second half."""
    shutil.copyfile(base_folder / "config.json", tmp_path / "config.json")
    prompt = build_prompt(load_tokenizer(base_folder), "判断下面的文本是否涉及诈骗。", 64)
    write_tokenizer(tmp_path, prompt, True)
    assert reads_alike(tmp_path, source_of(prompt, True), ["没有名字"])
    assert not reads_alike(tmp_path, source_of(prompt, True), list(HOSTILE))
    assert "AutoTokenizer drops a part of the tokenizer" in capsys.readouterr().out
    write_tokenizer(tmp_path, prompt, False)
    assert reads_alike(tmp_path, source_of(prompt, False), list(HOSTILE))


def test_a_tokenizer_that_reads_otherwise_is_refused(prompt, tmp_path):
    write_tokenizer(tmp_path, prompt, False)
    raw = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    raw["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(UserError, match="can't carry the prompt: it reads 'ABC'"):
        reads_alike(tmp_path, source_of(prompt, False), ["abc", "ABC"])
