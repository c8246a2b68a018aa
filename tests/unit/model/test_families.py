"""Each family of architectures, as a two-layer random model: scores in company against transformers' own forward of
each text alone, and the way that was chosen against docs/base-models.md."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from stages.errors import UserError
from stages.evaluate.generate import generate_verdicts
from stages.model.exactness import checked_inputs, choose_layout, use_layout
from stages.model.forward import completion_logits
from stages.model.layout import Layout, layout_of, underlying
from stages.model.load import ModelError, load_base
from stages.model.lora import attach_adapter, load_adapter
from stages.model.packed_attention import attend_as_shipped
from stages.model.scoring import label_scores
from stages.params import Method
from stages.text.batching import Collator
from stages.text.prompt import build_prompt
from stages.train.loss import answer_loss
from tests.conftest import METHODS, ROOT
from tests.unit.model.families import FAMILIES, FAST, tiny

CPU = torch.device("cpu")
PAGE = (ROOT / "docs/base-models.md").read_text(encoding="utf-8")
# Rows of its table: family, model_type, layout.
LISTED = {
    row[0]: row[1:] for row in re.findall(r"^\| ([^|]+?) \| `(\w+)` \| (packed|padded|equal lengths) \|", PAGE, re.M)
}


def plain_log_odds(folder: Path, prompt, texts: list[str]) -> np.ndarray:
    """Log-odds of fraud, from transformers' own forward of each text alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    scores = []
    for ids in prompt.tokenize(texts):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt.encode(ids)])).logits[0, -1].double()
        scores.append(float(logits[prompt.label_ids[True]] - logits[prompt.label_ids[False]]))
    return np.array(scores)


@pytest.mark.parametrize(
    "family", [family if family in FAST else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
)
def test_scores_in_company_are_transformers_own_alone(family, tokenizer, prompt, sample_texts, tmp_path):
    texts = [sample_texts[0][:20], *sample_texts[1:5], sample_texts[5][:60]]
    folder = tiny(family, tokenizer, tmp_path)
    expected = plain_log_odds(folder, prompt, texts)
    model = load_base(METHODS["lora"], folder, CPU)
    together = label_scores(model, prompt, texts, 10_000, "together").log_odds
    alone = [label_scores(model, prompt, [text], 10_000, "alone").log_odds[0] for text in texts]
    rounding = 1e-5 + 5e-5 * expected.std()
    assert expected.std() > 1e-3
    assert together == pytest.approx(expected, abs=rounding)
    assert alone == pytest.approx(expected, abs=rounding)
    assert layout_of(model).value == LISTED[family][1]
    assert FAMILIES[family][0] == LISTED[family][0]


def rounded_loss_and_gradients(model, run):
    """Of `run`, and of each adapter's weight."""
    model.zero_grad()
    loss = run()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        ("Mixtral", Layout.PACKED),
        ("Qwen3-MoE", Layout.PACKED),
        ("DeepSeek-V3", Layout.PACKED),
        ("gpt-oss", Layout.PADDED),
        ("Qwen3.5", Layout.PADDED),
        ("Gemma 2", Layout.PADDED),
        ("Granite 4 (hybrid)", Layout.PADDED),
        ("Qwen3.5", Layout.EQUAL_LENGTHS),
    ],
)
def test_a_step_has_the_gradients_of_the_plain_forward(
    family, layout, tokenizer, prompt, sample_texts, tmp_path, train_params
):
    """Loss and gradients of all adapters, experts' neighbours among them, are those of each text by itself."""
    model = attach_adapter(load_base(METHODS["lora"], tiny(family, tokenizer, tmp_path), CPU), train_params)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    use_layout(underlying(model), layout)
    if layout is not Layout.EQUAL_LENGTHS:
        assert choose_layout(model, prompt) is layout
    texts = [sample_texts[0][:20], sample_texts[1][:70], sample_texts[2][:40]]
    ids = [prompt.encode(each) for each in prompt.tokenize(texts)]
    labels = [[prompt.label_ids[True]], [prompt.label_ids[False]], [prompt.label_ids[True]]]
    rows = [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]
    batch = Collator(tokenizer.pad_token_id)(rows)
    found = rounded_loss_and_gradients(
        model, lambda: answer_loss(completion_logits(model, batch, len(prompt.prefix)), torch.tensor(labels), 1)
    )
    attend_as_shipped(underlying(model))

    def plain():
        logits = [model(input_ids=torch.tensor([row])).logits[0, -1] for row in ids]
        return torch.nn.functional.cross_entropy(torch.stack(logits), torch.tensor(labels)[:, 0], reduction="sum")

    expected = rounded_loss_and_gradients(model, plain)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert len(found[1]) >= 8
    for name, gradient in expected[1].items():
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0, name
        assert torch.allclose(found[1][name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())), name


@pytest.mark.slow
@pytest.mark.parametrize("family", ["Qwen3.5", "Falcon-H1", "LFM2", "Jamba", "Nemotron", "gpt-oss", "Llama 4 (text)"])
def test_a_leak_between_texts_is_found_in_bfloat16_too(family, tokenizer, prompt, tmp_path):
    model = load_base(Method(dtype="bfloat16"), tiny(family, tokenizer, tmp_path), CPU)
    assert choose_layout(model, prompt) is Layout.PADDED


@pytest.mark.slow
@pytest.mark.parametrize("family", ["Qwen2, Qwen2.5", "Gemma 3", "Mixtral", "GLM-4"])
@pytest.mark.parametrize("method", [Method(dtype="bfloat16"), *METHODS.values()], ids=["bfloat16", *METHODS])
def test_rounding_is_no_leak(family, method, tokenizer, prompt, tmp_path):
    assert choose_layout(load_base(method, tiny(family, tokenizer, tmp_path), CPU), prompt) is Layout.PACKED


def sees_the_whole(model, dims):
    """Makes a layer add the mean over a pass's tokens: no causal model any more."""
    layer = model.model.layers[1]
    layer.register_forward_pre_hook(lambda layer, args: (args[0] + args[0].mean(dims, keepdim=True), *args[1:]))
    return model


def test_texts_of_each_length_have_a_pass_of_their_own_where_padding_changes_scores(
    base_folder, prompt, sample_texts, capsys
):
    model = sees_the_whole(load_base(METHODS["lora"], base_folder, CPU), 1)
    texts = [sample_texts[0][:20], *sample_texts[1:4], sample_texts[0][:20]]
    together = label_scores(model, prompt, texts, 10_000, "together").log_odds
    alone = [label_scores(model, prompt, [text], 10_000, "alone").log_odds[0] for text in texts]
    assert together == pytest.approx(alone, abs=1e-5)
    assert "Qwen2ForCausalLM (model_type qwen2): packed into one row" in (said := capsys.readouterr().out)
    assert "one pass for each length" in said
    assert said.count("WARNING") == 1


def test_a_model_whose_scores_depend_on_other_texts_is_refused_by_its_name(base_folder, prompt):
    model = sees_the_whole(load_base(METHODS["lora"], base_folder, CPU), (0, 1))
    with pytest.raises(ModelError, match="Qwen2ForCausalLM .model_type qwen2.: a text's score depends on the texts"):
        choose_layout(model, prompt)


def test_a_text_beyond_the_models_positions_is_refused(tokenizer, sample_texts, tmp_path):
    long = build_prompt(tokenizer, "?", 3000)
    model = load_base(METHODS["lora"], tiny("OPT", tokenizer, tmp_path), CPU)
    with pytest.raises(ModelError, match="OPTForCausalLM .model_type opt. can't score a text"):
        choose_layout(model, long)


def test_generation_leaves_the_layout_as_it_was(tokenizer, prompt, sample_texts, tmp_path, train_params):
    model = attach_adapter(load_base(METHODS["lora"], tiny("Gemma 2", tokenizer, tmp_path), CPU), train_params).eval()
    before = label_scores(model, prompt, sample_texts[:3], 4096, "before").log_odds
    generate_verdicts(model, prompt, sample_texts[:2], 2, 2)
    assert label_scores(model, prompt, sample_texts[:3], 4096, "after").log_odds.tolist() == before.tolist()


@pytest.mark.parametrize("family", ["Mixtral", "gpt-oss", "Granite 4 (hybrid)"])
def test_adapters_of_a_mixture_of_experts_come_back_as_saved(
    family, tokenizer, prompt, sample_texts, tmp_path, train_params
):
    folder = tiny(family, tokenizer, tmp_path / "base")
    model = attach_adapter(load_base(METHODS["lora"], folder, CPU), train_params).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    again = load_adapter(load_base(METHODS["lora"], folder, CPU), tmp_path / "adapter")
    scores = [label_scores(each, prompt, sample_texts[:4], 4096, "four").log_odds for each in (model, again)]
    assert scores[0].tolist() == scores[1].tolist()


@pytest.mark.parametrize(
    ("family", "names"),
    [("Qwen2, Qwen2.5", ["q_proj", "query"]), ("Mixtral", ["q_proj", "gate"]), ("Qwen3", "wrong.*"), ("Qwen3", "(")],
)
def test_target_modules_that_are_not_there_are_named(family, names, tokenizer, tmp_path, train_params):
    model = load_base(METHODS["lora"], tiny(family, tokenizer, tmp_path), CPU)
    wrong = re.escape(names if isinstance(names, str) else names[1])
    with pytest.raises(UserError, match=rf"train.target_modules: {wrong} is not a linear layer .* among .*q_proj"):
        attach_adapter(model, dataclasses.replace(train_params, target_modules=names))


def test_experts_that_stay_unquantized_are_warned_of(tokenizer, prompt, tmp_path, capsys):
    load_base(METHODS["qlora"], tiny("Mixtral", tokenizer, tmp_path), CPU)
    assert re.search(r"WARNING: MixtralForCausalLM: \d\d% of the bytes are experts", capsys.readouterr().out)
    load_base(METHODS["qlora"], tiny("LFM2", tokenizer, tmp_path / "conv"), CPU)
    assert "experts" not in capsys.readouterr().out


def test_a_text_beyond_every_bound_of_the_model_is_compared(prompt):
    config = Qwen2Config(sliding_window=40, use_sliding_window=True, max_position_embeddings=200)
    lengths = [len(ids) for ids in checked_inputs(prompt, config)]
    assert 200 < max(lengths) <= prompt.max_length
    config.max_position_embeddings = prompt.max_length  # no text is longer
    assert 40 < max(len(ids) for ids in checked_inputs(prompt, config)) < 200
