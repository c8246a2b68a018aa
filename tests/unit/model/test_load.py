"""Loading under each method, and the hidden traps of quantized layers."""

import dataclasses
import json
import logging
import shutil

import bitsandbytes as bnb
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM

from stages.benchmark.weights import weight_bytes
from stages.model import load as load_module
from stages.model.forward import completion_logits
from stages.model.load import ModelError, load_base, load_tokenizer
from stages.model.lora import attach_adapter
from stages.model.patches import keep_packing
from stages.model.scoring import label_scores
from stages.params import Method
from stages.text.batching import Collator
from tests.conftest import METHODS
from tests.unit.model.helpers import CPU, quantized_layers, rows_of


def test_evaluating_between_steps_changes_no_gradient_under_nf4(base_folder, prompt, sample_texts, train_params):
    """bitsandbytes repacks 4-bit weights in eval mode on some CPUs, after which gradients are wrong: not here."""
    model = attach_adapter(load_base(METHODS["qlora"], base_folder, CPU), train_params)
    with torch.no_grad():  # B starts at zero, which would hide A's gradient
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    batch = Collator(0)(rows_of(prompt, sample_texts[:4], True))
    before = gradients(model, batch)
    packed = [layer.weight.data.clone() for layer in quantized_layers(model)]
    label_scores(model, prompt, sample_texts[:4], 4096, "between")
    assert all(torch.equal(old, layer.weight.data) for old, layer in zip(packed, quantized_layers(model), strict=True))
    assert not any(layer.support_avx512bf16_for_cpu for layer in quantized_layers(model))
    after = gradients(model, batch)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def gradients(model, batch):
    model.train()
    model.zero_grad()
    logits = completion_logits(model, batch)
    functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten()).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_the_repacking_is_switched_off_whatever_the_cpu(base_folder):
    model = load_base(METHODS["qlora"], base_folder, CPU)
    for layer in quantized_layers(model):
        layer.support_avx512bf16_for_cpu = True  # as bitsandbytes sets it on such a CPU
    keep_packing(model)
    assert not any(layer.support_avx512bf16_for_cpu for layer in quantized_layers(model))


def test_dequantized_residency_holds_nf4s_very_numbers(base_folder, prompt, sample_texts):
    packed = load_base(METHODS["qlora"], base_folder, CPU)
    unpacked = load_base(METHODS["qlora-dequantized"], base_folder, CPU)
    assert quantized_layers(packed)
    assert not quantized_layers(unpacked)
    for name, module in packed.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            assert torch.equal(weight, unpacked.get_submodule(name).weight)
    scores = [label_scores(m, prompt, sample_texts[:6], 4096, "six").log_odds for m in (packed, unpacked)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_folder_saved_quantized_loads_as_it_was(base_folder, tmp_path, prompt, sample_texts):
    model = load_base(METHODS["qlora"], base_folder, CPU)
    model.save_pretrained(tmp_path)
    again = load_base(METHODS["qlora"], tmp_path, CPU)
    assert weight_bytes(again) == weight_bytes(model)
    scores = [label_scores(m, prompt, sample_texts[:4], 4096, "four").log_odds for m in (model, again)]
    assert scores[0].tolist() == scores[1].tolist()


@pytest.mark.parametrize(
    ("saved", "asked", "message"),
    [
        ("qlora", Method(dtype="float32"), "load_in_4bit: true.*the method has load_in_4bit: false"),
        ("qlora", METHODS["lora-int8"], "the method has load_in_4bit: false, load_in_8bit: true"),
        ("qlora", METHODS["qlora-dq"], "the method has bnb_4bit_use_double_quant: true"),
        ("qlora", dataclasses.replace(METHODS["qlora"], bnb_4bit_quant_type="fp4"), 'bnb_4bit_quant_type: "fp4"'),
        ("lora-int8", METHODS["qlora"], "load_in_8bit: true.*the method has load_in_4bit: true"),
        ("lora-int8", METHODS["lora"], "the method has load_in_8bit: false"),
    ],
)
def test_a_saved_quantization_that_is_not_the_methods_is_refused(base_folder, tmp_path, saved, asked, message):
    load_base(METHODS[saved], base_folder, CPU).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_base(asked, tmp_path, CPU)
    assert load_base(METHODS[saved], tmp_path, CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "saved quantized by gptq"),
        ({"model_type": "qwen9"}, "can't be loaded by the pinned transformers"),
    ],
)
def test_a_config_that_can_not_be_used_is_refused_in_a_sentence(base_folder, tmp_path, change, message):
    shutil.copytree(base_folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load_base(METHODS["lora"], tmp_path, CPU)


def test_a_tokenizer_that_can_not_be_used_is_refused_in_a_sentence(base_folder, tmp_path):
    shutil.copytree(base_folder, tmp_path / "markless")
    settings = json.loads((base_folder / "tokenizer_config.json").read_text())
    markless = {key: value for key, value in settings.items() if key not in ("eos_token", "pad_token")}
    (tmp_path / "markless/tokenizer_config.json").write_text(json.dumps(markless))
    (tmp_path / "markless/config.json").write_text('{"model_type": "llama"}')  # Qwen2's tokenizer has marks of its own
    with pytest.raises(ModelError, match="neither an eos_token nor a pad_token"):
        load_tokenizer(tmp_path / "markless")
    with pytest.raises(ModelError, match="nowhere can't be loaded"):
        load_tokenizer(tmp_path / "nowhere")


def test_a_folder_without_a_model_says_what_to_run(tmp_path):
    with pytest.raises(ModelError, match="run `dvc repro fetch`"):
        load_base(METHODS["lora"], tmp_path, CPU)


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to"), torch.OutOfMemoryError, "^CUDA out of memory. Tried"),
        (ValueError("no such block size"), ModelError, "can't be loaded: ValueError: no such block size"),
    ],
)
def test_a_weight_that_can_not_be_quantized_says_why(base_folder, monkeypatch, caplog, raised, expected, message):
    def fail(*_):
        raise raised

    monkeypatch.setattr(bnb.nn.Params4bit, "to", fail)
    with pytest.raises(expected, match=message):
        load_base(METHODS["qlora"], base_folder, CPU)
    assert caplog.text == ""


def test_memory_that_runs_out_after_a_warning_is_still_that(base_folder, monkeypatch, capfd):
    def run_out(*_, **__):
        logging.getLogger("transformers.modeling_utils").warning("a key is not used")
        raise torch.OutOfMemoryError("of the card")

    monkeypatch.setattr(load_module.AutoModelForCausalLM, "from_pretrained", run_out)
    with pytest.raises(torch.OutOfMemoryError, match="of the card"):
        load_base(METHODS["lora"], base_folder, CPU)
    assert "a key is not used" not in "".join(capfd.readouterr())


def test_weights_of_another_shape_are_listed(base_folder, tmp_path):
    folder = shutil.copytree(base_folder, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"(?s)can't be loaded: .*mlp.*MISMATCH"):
        load_base(METHODS["lora"], folder, CPU)


def test_pickled_weights_are_not_read(base_folder, tmp_path):
    torch.save(load_file(base_folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((base_folder / "config.json").read_bytes())
    with pytest.raises(ModelError, match="safetensors"):
        load_base(METHODS["lora"], tmp_path, CPU)
    assert AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=False)  # they could have been


def test_a_bitsandbytes_without_a_gpu_build_is_reported_before_the_model_is_read(monkeypatch, base_folder):
    monkeypatch.setattr(load_module.cextension, "lib", object())
    monkeypatch.setattr(load_module, "pick_dtype", lambda name, device: torch.float32)
    with pytest.raises(ModelError, match="bitsandbytes .* has no library for CUDA .* or choose method lora"):
        load_base(METHODS["qlora"], base_folder, torch.device("cuda", 0))
