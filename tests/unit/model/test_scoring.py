"""The score of a text: the label words' rows of the head by themselves, the same whoever asks for it."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import Gemma2Config, Gemma2ForCausalLM

from stages.classifier.trained import (
    RECORD_FILE,
    TrainedClassifier,
    load_classifier,
    load_selected,
    read_selected,
    write_classifier,
)
from stages.model import scoring as score_module
from stages.model.load import ModelError, attend_packed, load_base
from stages.model.lora import attach_adapter
from stages.model.provenance import read_identity
from stages.model.scoring import SCORING, label_scores
from stages.params import Method
from stages.text.prompt import build_prompt, report_truncated
from tests.conftest import METHODS

CPU = torch.device("cpu")
BFLOAT16 = Method(dtype="bfloat16")
INSTRUCTION = "判断下面的文本是否涉及诈骗。"


def alone(model, prompt, text: str) -> float:
    """Log-odds by transformers' own forward over one text, the head's product in float32."""
    (ids,) = prompt.tokenize([text])
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([prompt.encode(ids)])).last_hidden_state[0, -1]
        rows = model.lm_head.weight[[prompt.label_ids[False], prompt.label_ids[True]]]
        false, true = functional.linear(hidden.float(), rows.float()).tolist()
    return true - false


def test_in_float32_a_score_is_the_reference_to_1e_5(base_folder, prompt, sample_texts):
    model = load_base(METHODS["lora"], base_folder, CPU)
    scores = label_scores(model, prompt, sample_texts[:20], 4096, "")
    assert scores.log_odds == pytest.approx([alone(model, prompt, text) for text in sample_texts[:20]], abs=1e-5)


def test_in_bfloat16_different_texts_have_different_scores(base_folder, prompt, sample_texts):
    model = load_base(BFLOAT16, base_folder, CPU)
    texts = list(dict.fromkeys(sample_texts))[:200]
    scores = label_scores(model, prompt, texts, 4096, "")
    assert len(set(scores.log_odds.tolist())) == len(texts)
    with torch.no_grad():  # as it was: the difference of two logits of bfloat16
        hidden = model.model(input_ids=torch.tensor([prompt.encode(prompt.tokenize(texts[:1])[0])])).last_hidden_state
        assert model.lm_head(hidden).dtype == torch.bfloat16


def test_the_losses_of_the_whole_vocabulary_come_beside_the_same_scores(base_folder, prompt, sample_texts):
    model = load_base(METHODS["lora"], base_folder, CPU)
    texts = sample_texts[:8]
    short = label_scores(model, prompt, texts, 4096, "")
    whole = label_scores(model, prompt, texts, 4096, "", vocabulary=True)
    assert short.log_probability is None
    assert short.log_odds == pytest.approx(whole.log_odds, abs=1e-6)
    assert whole.log_probability[:, 1] - whole.log_probability[:, 0] == pytest.approx(whole.log_odds, abs=1e-4)
    assert np.exp(whole.log_probability).sum(axis=1).max() < 1


@pytest.mark.parametrize("bias", [False, True])
def test_a_model_keeps_what_it_does_to_its_logits(prompt, sample_texts, bias):
    """Soft-capping, and a bias of the head."""
    torch.manual_seed(0)
    size = len(prompt.tokenizer)
    config = Gemma2Config(
        vocab_size=size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, final_logit_softcapping=0.5, attn_logit_softcapping=None,
        query_pre_attn_scalar=16,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    if bias:
        model.lm_head.bias = nn.Parameter(torch.randn(size))
    attend_packed(model)
    texts = sample_texts[:6]
    scores = label_scores(model, prompt, texts, 4096, "")
    model.set_attn_implementation("eager")
    for text, found in zip(texts, scores.log_odds, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt.encode(prompt.tokenize([text])[0])])).logits[0, -1]
        assert logits.abs().max() <= 0.5
        assert found == pytest.approx(
            (logits[prompt.label_ids[True]] - logits[prompt.label_ids[False]]).item(), abs=1e-5
        )


def test_an_adapter_on_the_head_counts(base_folder, prompt, sample_texts, train_params):
    train = dataclasses.replace(train_params, target_modules=["lm_head", "q_proj"])
    model = attach_adapter(load_base(METHODS["lora"], base_folder, CPU), train)
    before = label_scores(model, prompt, sample_texts[:4], 4096, "").log_odds
    head = model.get_base_model().lm_head
    torch.nn.init.normal_(head.lora_B["default"].weight)
    after = label_scores(model, prompt, sample_texts[:4], 4096, "").log_odds
    assert np.abs(after - before).min() > 1e-3
    (ids,) = prompt.tokenize(sample_texts[:1])
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt.encode(ids)])).logits[0, -1]
    assert after[0] == pytest.approx(
        (logits[prompt.label_ids[True]] - logits[prompt.label_ids[False]]).item(), abs=1e-4
    )


def test_the_head_is_as_it_was_after_scoring(base_folder, prompt, sample_texts):
    model = load_base(METHODS["lora"], base_folder, CPU)
    ids = torch.tensor([prompt.encode(prompt.tokenize(sample_texts[:1])[0])])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        label_scores(model, prompt, sample_texts[:3], 4096, "")
        assert torch.equal(model(input_ids=ids).logits, before)
    assert "forward" not in vars(model.lm_head)


def test_a_file_scored_window_by_window_has_the_scores_of_the_whole(base_folder, prompt, sample_texts, monkeypatch):
    """predict reads windows, evaluate has all rows at once; in bfloat16 other batches give other digits."""
    model = load_base(BFLOAT16, base_folder, CPU)
    monkeypatch.setattr(score_module, "WINDOW", 16)
    texts = sample_texts[:40]
    whole = label_scores(model, prompt, texts, 1000, "").log_odds
    parts = [label_scores(model, prompt, texts[start : start + 16], 1000, "").log_odds for start in (0, 16, 32)]
    assert (whole == np.concatenate(parts)).all()
    monkeypatch.setattr(score_module, "WINDOW", 40)
    assert (whole != label_scores(model, prompt, texts, 1000, "").log_odds).any()  # so that the above can fail


@pytest.mark.parametrize(
    ("side", "expected"),
    [("right", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), ("left", list(range(90, 100))), ("middle", None)],
)
def test_a_long_text_loses_the_side_that_is_asked_for(tokenizer, side, expected):
    around = build_prompt(tokenizer, INSTRUCTION, 256).max_length - build_prompt(tokenizer, INSTRUCTION, 256).room
    prompt = build_prompt(tokenizer, INSTRUCTION, 16 + around, truncation_side=side)
    assert prompt.room == 16
    cut = prompt.truncate(list(range(100)))
    assert len(cut) == 16
    if side == "middle":
        gap = len(prompt.gap)
        kept = 16 - gap
        assert cut[: kept - kept // 2] == list(range(kept - kept // 2))
        assert cut[len(cut) - kept // 2 :] == list(range(100 - kept // 2, 100))
        assert cut[kept - kept // 2 :][:gap] == prompt.gap
    else:
        assert cut[:10] == expected or cut[-10:] == expected
    assert prompt.truncate([1, 2]) == [1, 2]


def test_scores_count_the_texts_that_were_cut(base_folder, tokenizer, sample_texts):
    prompt = build_prompt(tokenizer, INSTRUCTION, 80)
    model = load_base(METHODS["lora"], base_folder, CPU)
    texts = ["短", sample_texts[0] * 20, "好的", sample_texts[1] * 20]
    assert label_scores(model, prompt, texts, 4096, "").truncated.tolist() == [False, True, False, True]


def test_who_reads_cut_texts_says_so(capsys):
    report_truncated("evaluate", "test", 0, 130, "right")
    assert not capsys.readouterr().out
    report_truncated("evaluate", "test", 13, 130, "left")
    assert "evaluate: WARNING: 13 of 130 texts of test (10.0%)" in capsys.readouterr().out


def record(base, prompt, **changes) -> TrainedClassifier:
    return TrainedClassifier(
        **{
            "step": 1, "threshold": 0.5, "temperature": 1.0, "speakers_removed": False, "valid": {},
            "promised": {"fraud_fraction": 0.5, "precision": 0.5, "recall": 0.5, "average_precision": 0.5},
            "select": {"metric": "f1"}, "method_name": "lora", "method": dataclasses.asdict(METHODS["lora"]),
            "prompt": {"instruction": INSTRUCTION, "max_length": 256, "repetitions": 1, "truncation_side": "right"},
            "base": read_identity(base), "dataset_name": "sample", "rendered": prompt.rendered, "scoring": SCORING,
            "max_tokens_per_batch": 4096,
        } | changes
    )  # fmt: skip


def test_a_prompt_that_tells_the_date_is_the_trainings_in_every_later_stage(dated_base, tmp_path, train_params):
    from stages.model.load import load_tokenizer

    prompt = build_prompt(load_tokenizer(dated_base), INSTRUCTION, 256)
    assert build_prompt(load_tokenizer(dated_base), INSTRUCTION, 256).prefix != prompt.prefix  # so that this can fail
    model = attach_adapter(load_base(METHODS["lora"], dated_base, CPU), train_params)
    model.save_pretrained(tmp_path / "adapter")
    write_classifier(tmp_path / "selected", tmp_path / "adapter", record(dated_base, prompt), "")
    _, loaded, _ = load_selected(tmp_path / "selected", dated_base)
    assert (loaded.prefix, loaded.suffix) == (prompt.prefix, prompt.suffix)
    _, again = load_classifier(
        tmp_path / "adapter",
        METHODS["lora"],
        {"instruction": INSTRUCTION, "max_length": 256},
        prompt.rendered,
        dated_base,
    )
    assert again.prefix == prompt.prefix


@pytest.mark.parametrize(
    "change", [{"threshold": float("nan")}, {"temperature": 0.0}, {"temperature": -1.0}, {"temperature": float("inf")}]
)
def test_a_record_whose_numbers_decide_nothing_is_refused(base_folder, prompt, tmp_path, change):
    """Every text would get the same verdict, or the opposite one."""
    values = dataclasses.asdict(record(base_folder, prompt)) | change
    (tmp_path / RECORD_FILE).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ModelError, match="threshold is .* and temperature .*; expected numbers"):
        read_selected(tmp_path)


def test_an_earlier_selection_is_recognised_and_a_later_one_refused(base_folder, prompt, tmp_path, capsys):
    values = dataclasses.asdict(record(base_folder, prompt))
    for key in ("rendered", "scoring", "max_tokens_per_batch"):  # as written before
        del values[key]
    (tmp_path / RECORD_FILE).write_text(json.dumps(values), encoding="utf-8")
    assert read_selected(tmp_path).scoring == 1
    said = capsys.readouterr().err
    assert "earlier arithmetic" in said
    assert "dvc repro select" in said
    (tmp_path / RECORD_FILE).write_text(json.dumps(values | {"scoring": SCORING}), encoding="utf-8")
    read_selected(tmp_path)
    assert not capsys.readouterr().err
    for later in ({"scoring": SCORING + 1}, {"bands": {}}):
        (tmp_path / RECORD_FILE).write_text(json.dumps(values | later), encoding="utf-8")
        with pytest.raises(ModelError, match="later version"):
            read_selected(tmp_path)
