"""Adapters: fresh, loaded, merged."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.errors import UserError
from stages.model.load import load_base
from stages.model.lora import attach_adapter, load_adapter, merge_unquantized
from stages.model.scoring import label_scores
from tests.conftest import METHODS
from tests.unit.model.families import tiny
from tests.unit.model.helpers import CPU


def test_a_fresh_adapter_changes_nothing_and_spares_head_and_base(
    base_folder, prompt, sample_texts, train_params, method
):
    base = load_base(method, base_folder, CPU)
    before = label_scores(base, prompt, sample_texts[:3], 4096, "base").log_odds
    model = attach_adapter(base, train_params)
    assert label_scores(model, prompt, sample_texts[:3], 4096, "adapter").log_odds == pytest.approx(before, abs=1e-5)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)
    assert len(trained) == 2 * 2 * 7  # A and B, two layers, seven linear layers each


@pytest.mark.parametrize("method", ["lora", "qlora-dequantized"])
def test_merged_scores_are_the_adapters_and_there_is_no_way_back(base_folder, prompt, train_params, method):
    model = attach_adapter(load_base(METHODS[method], base_folder, CPU), train_params).eval()
    randomize_adapters(model)
    texts = ["中奖了，请先交税", "明天一起吃饭吗", "x" * 40]
    before = label_scores(model, prompt, texts, 1000, "test").log_odds
    with model.disable_adapter():
        base = label_scores(model, prompt, texts, 1000, "test").log_odds
    assert abs(before - base).max() > 0.01
    merge_unquantized(model)
    assert label_scores(model, prompt, texts, 1000, "test").log_odds == pytest.approx(before, abs=1e-3)
    with model.disable_adapter(), pytest.raises(RuntimeError, match="part of the weights"):
        label_scores(model, prompt, texts, 1000, "test")


@pytest.mark.parametrize(("method", "targets"), [("qlora", "all-linear"), ("lora", ["q_proj", "lm_head"])])
def test_adapters_that_can_not_be_merged_stay(base_folder, prompt, train_params, method, targets):
    """Quantized weights; and a head that is the embeddings too."""
    train = dataclasses.replace(train_params, target_modules=targets)
    model = attach_adapter(load_base(METHODS[method], base_folder, CPU), train).eval()
    randomize_adapters(model)
    before = label_scores(model, prompt, ["中奖了"], 1000, "test").log_odds
    merge_unquantized(model)
    assert label_scores(model, prompt, ["中奖了"], 1000, "test").log_odds == pytest.approx(before)


def randomize_adapters(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)


def adapter_in(folder: Path, base_folder: Path, train_params) -> Path:
    attach_adapter(load_base(METHODS["lora"], base_folder, CPU), train_params).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: dict(list(weights.items())[2:]), "2 of 28 weights of the adapter are missing and 0 have no"),
        (lambda weights: {name.replace("model.layers", "text.layers"): w for name, w in weights.items()}, "28 of 28"),
        (lambda weights: weights | {"base_model.more.weight": torch.zeros(1)}, "0 of 28 .* and 1 have no place"),
    ],
)
def test_an_adapter_that_fits_only_in_part_is_refused(base_folder, tmp_path, train_params, change, said):
    """peft would warn at most, and the base model would score in its place."""
    file = adapter_in(tmp_path, base_folder, train_params) / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path))} does not fit Qwen2ForCausalLM: {said}"):
        load_adapter(load_base(METHODS["lora"], base_folder, CPU), tmp_path)


def test_an_adapter_that_fits_is_loaded(base_folder, tmp_path, train_params):
    load_adapter(load_base(METHODS["lora"], base_folder, CPU), adapter_in(tmp_path, base_folder, train_params))


@pytest.mark.parametrize("method", ["qlora", "lora-int8"])
def test_quantized_layers_that_the_model_changes_in_training_are_refused(tokenizer, train_params, tmp_path, method):
    model = load_base(METHODS[method], tiny("Gemma 3n", tokenizer, tmp_path), CPU)
    with pytest.raises(UserError, match="_coefs is quantized, and gemma3n_text changes its weights"):
        attach_adapter(model, train_params)
