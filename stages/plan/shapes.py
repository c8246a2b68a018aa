"""Configurations of base models: published ones, known without a download, and those of a folder."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig, Qwen2Config

from stages.errors import UserError

# From the published config.json of Qwen2(.5)-…-Instruct.
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2-0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "qwen2-1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
    "qwen2.5-3b": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16},
    "qwen2-7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
}
KEY_VALUE_HEADS = {"qwen2-0.5b": 2, "qwen2-1.5b": 2, "qwen2.5-3b": 2, "qwen2-7b": 4}
VOCABULARY = {"qwen2-0.5b": 151936, "qwen2-1.5b": 151936, "qwen2.5-3b": 151936, "qwen2-7b": 152064}
KNOWN_TYPES = ("llama", "mistral", "qwen2")  # the model types whose decoder layers the formula describes
NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def config_of(shape: str) -> Qwen2Config:
    """The configuration of a name in SHAPES. Raises UserError for any other."""
    if shape not in SHAPES:
        raise UserError(f"shape: found {shape!r}; expected one of {', '.join(SHAPES)}")
    return Qwen2Config(
        **SHAPES[shape],
        num_key_value_heads=KEY_VALUE_HEADS[shape],
        vocab_size=VOCABULARY[shape],
        tie_word_embeddings=shape != "qwen2-7b",
        max_position_embeddings=32768,
        rope_theta=1e6,  # type: ignore[call-arg]
        dtype="bfloat16",
    )


def read_config(folder: Path) -> PretrainedConfig:
    """The configuration in a model's folder. Raises UserError for a model that the formula does not describe."""
    if not (folder / "config.json").is_file():
        raise UserError(f"--config {folder} holds no config.json; expected a model's folder")
    try:
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers lets errors of many kinds through
        reason = str(error).split("\n")[0]
        raise UserError(
            f"--config {folder}: config.json can't be read: {reason}; expected a model's configuration"
        ) from None
    if config.model_type not in KNOWN_TYPES:
        raise UserError(
            f"--config {folder} is of type {config.model_type}; the formula knows {', '.join(KNOWN_TYPES)} only"
        )
    for key in NEEDED + ("num_key_value_heads",) * ("num_key_value_heads" in given):
        if type(given.get(key)) is not int or given[key] < 1:
            raise UserError(f"--config {folder}: {key} is {given.get(key)!r}; expected a whole number above 0")
    return config
