"""Checks by config.json and tokenizer that a model can be used here, before its weights are downloaded."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from stages.fetch.publish import FetchError
from stages.text.prompt import PromptError, build_prompt

# How transformers names classes with an output head for the next token.
CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ModelWithLMHead")


def require_usable(folder: Path, name: str) -> None:
    """Raises FetchError unless `folder` holds config.json and tokenizer of a model that this project can train.

    It has to be a causal language model that transformers ships, unquantized or quantized by bitsandbytes. Its
    tokenizer has to read each label word as a single token.

    Args:
        folder: the downloaded config.json and tokenizer files.
        name: what to call the model in errors.
    """
    for file in ("config.json", "tokenizer.json"):
        if not (folder / file).is_file():
            raise FetchError(f"{name} has no {file}; expected a causal language model in the hub's layout")
    config = read_config_json(folder, name)
    require_no_other_quantization(config, name)
    require_known_type(config, name)
    require_causal(config, name)
    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers lets errors of many kinds through
        raise FetchError(
            f"{name}: transformers can't read config.json: {first_line(error)}. Expected the configuration of a model "
            "that it ships: choose another model or revision"
        ) from error
    require_tokenizer(folder, name)


def read_config_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise FetchError(
            f"{name}: config.json is no JSON: {error}. Fetch it again, or choose another revision"
        ) from error
    if not isinstance(config, dict):
        raise FetchError(f"{name}: config.json holds {type(config).__name__}; expected an object of settings")
    return config


def require_no_other_quantization(config: dict[str, Any], name: str) -> None:
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        saved = part.get("quantization_config") or part.get("compression_config")
        if not saved:
            continue
        kind = saved.get("quant_method") or ("bitsandbytes" if set(saved) & {"load_in_4bit", "load_in_8bit"} else "?")
        if kind != "bitsandbytes":
            raise FetchError(
                f"{name}: config.json has quantization_config.quant_method {kind!r}; expected unquantized weights, or "
                "those of bitsandbytes: choose the model's unquantized release, which the methods of params.yaml "
                "quantize themselves"
            )


def require_known_type(config: dict[str, Any], name: str) -> None:
    kind = config.get("model_type")
    if kind in CONFIG_MAPPING_NAMES:
        return
    if "auto_map" in config:
        raise FetchError(
            f"{name}: config.json has model_type {kind!r} and auto_map, so the model brings its own code, which "
            "is never run; expected a model_type that transformers ships: choose another model"
        )
    raise FetchError(
        f"{name}: config.json has model_type {kind!r}, which the pinned transformers lacks; expected one that it "
        "ships: choose another model (docs/base-models.md)"
    )


def require_causal(config: dict[str, Any], name: str) -> None:
    kind, classes = config["model_type"], config.get("architectures") or []
    named = [each for each in classes if str(each).endswith(CAUSAL)]
    is_causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (named or not classes)
    if is_causal and not config.get("is_encoder_decoder"):
        return
    found = ", ".join(map(str, classes)) or "no architectures"
    raise FetchError(
        f"{name}: config.json has model_type {kind!r} and {found}; expected a causal language model, which gives "
        "the next token's probability: choose another model (docs/base-models.md)"
    )


def require_tokenizer(folder: Path, name: str) -> None:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # tokenizers let errors of many kinds through
        raise FetchError(
            f"{name}: the tokenizer can't be loaded: {first_line(error)}. Expected one that transformers ships: choose "
            "another model"
        ) from error
    if tokenizer.eos_token_id is None and tokenizer.pad_token_id is None:
        raise FetchError(
            f"{name}: the tokenizer has neither an eos_token nor a pad_token; expected one to pad rows with: name it "
            "in tokenizer_config.json, or choose another model"
        )
    try:
        build_prompt(tokenizer, "?", 512)
    except PromptError as error:
        raise FetchError(f"{name}: {error}") from error


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
