"""What can't serve is refused before its weights come."""

import json

import pytest

from stages.fetch.publish import FetchError, staging_folder
from stages.fetch.sources import from_hub
from stages.params import Model
from tests.unit.fetch.hub import COMMIT, GPTQ

REFUSED = {
    "GPTQ": ({"quantization_config": GPTQ}, "quant_method 'gptq'; expected unquantized weights"),
    "AWQ": ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quant_method 'awq'"),
    "FP8": ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "quant_method 'fp8'"),
    "MXFP4": ({"quantization_config": {"quant_method": "mxfp4"}}, "quant_method 'mxfp4'"),
    "compressed": ({"compression_config": {"format": "int-quantized"}}, "expected unquantized weights"),
    "of a text part": ({"text_config": {"quantization_config": GPTQ}}, "quant_method 'gptq'"),
    "remote code": ({"model_type": "baichuan", "auto_map": {"AutoModel": "m.B"}}, "'baichuan' and auto_map.*never run"),
    "InternLM 2": ({"model_type": "internlm2", "auto_map": {"AutoModel": "m.I"}}, "'internlm2' and auto_map"),
    "ChatGLM": ({"model_type": "chatglm", "auto_map": {"AutoModel": "m.C"}}, "'chatglm' and auto_map"),
    "unknown": ({"model_type": "qwen9"}, "model_type 'qwen9', which the pinned transformers lacks"),
    "none": ({"model_type": None}, "model_type None"),
    "encoder and decoder": ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "'t5' and T5For"),
    "BART": (
        {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "is_encoder_decoder": True},
        "expected a causal language model",
    ),
    "BERT": ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "'bert' and BertForMaskedLM"),
    "a classifier": ({"architectures": ["Qwen2ForSequenceClassification"]}, "Qwen2ForSequenceClassification; expected"),
    "embeddings": ({"architectures": ["Qwen2Model"]}, "Qwen2Model; expected a causal language model"),
    "vision": ({"model_type": "vit", "architectures": ["ViTModel"]}, "'vit' and ViTModel"),
    "impossible": ({"hidden_size": "large"}, "transformers can't read config.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_config_json_rules_out_is_refused_before_weights_come(hub, case):
    changes, message = REFUSED[case]
    hub.files["config.json"] = json.dumps(json.loads(hub.files["config.json"]) | changes).encode()
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    with pytest.raises(FetchError, match=f"mine/tiny: .*{message}"):
        from_hub(model, staging_folder(model))
    assert any("config.json" in request for request in hub.asked)
    assert not any("model.safetensors" in request for request in hub.asked)


def broken_tokenizers(files: dict[str, bytes]) -> dict[str, tuple[dict[str, bytes], str]]:
    settings, tokenizer, config = (
        json.loads(files[name]) for name in ("tokenizer_config.json", "tokenizer.json", "config.json")
    )
    # A type whose tokenizer adds no marks and cuts no texts itself, as Qwen2's does.
    llama = {
        "config.json": json.dumps(config | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()
    }
    markless = {key: value for key, value in settings.items() if key not in ("eos_token", "pad_token")}
    digits = tokenizer | {
        "pre_tokenizer": {"type": "Split", "pattern": {"String": "u"}, "behavior": "Isolated", "invert": False}
    }
    return {
        "no eos, no pad": (
            llama | {"tokenizer_config.json": json.dumps(markless).encode()},
            "neither an eos_token nor a pad_token",
        ),
        "no label words": (llama | {"tokenizer.json": json.dumps(digits).encode()}, "one more for the label word"),
        "no JSON": ({"tokenizer.json": b"{"}, "the tokenizer can't be loaded"),
        "a template that changes texts": (
            {"chat_template.jinja": b"{{ messages[0].content }}{{ messages[0].content }}"},
            "does not repeat the user's text once",
        ),
        "a config that is no JSON": ({"config.json": b"{"}, "config.json is no JSON"),
        "a config that is a list": ({"config.json": b"[]"}, "config.json holds list"),
    }


@pytest.mark.parametrize(
    "case", broken_tokenizers(dict.fromkeys(("tokenizer_config.json", "tokenizer.json", "config.json"), b"{}"))
)
def test_a_tokenizer_that_does_not_serve_is_refused_before_weights_come(hub, case):
    changes, message = broken_tokenizers(hub.files)[case]
    hub.files |= changes
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    with pytest.raises(FetchError, match=f"mine/tiny: .*{message}"):
        from_hub(model, staging_folder(model))
    assert not any("model.safetensors" in request for request in hub.asked)


def test_what_bitsandbytes_saved_and_known_types_with_code_are_taken(hub, tmp_path):
    saved = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    extra = {"quantization_config": saved, "auto_map": {"AutoModel": "modeling_evil.Evil"}}
    hub.files["config.json"] = json.dumps(json.loads(hub.files["config.json"]) | extra).encode()
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    assert (from_hub(model, staging_folder(model)) / "model.safetensors").is_file()
