"""Exports of the causal model: merged weights, and the adapter alone."""

import shutil
from pathlib import Path
from typing import Any

from stages.artifacts import read_json
from stages.classifier.trained import ADAPTER_FILES
from stages.export.merge import Source, dtype_named, merged_model
from stages.export.record import write_record
from stages.export.tokenizer import write_tokenizer
from stages.model.device import pick_device, pick_dtype
from stages.params import Method

SCORING = "scoring"  # folder of the tokenizer that holds the prompt, beside the base model's own, which generates
OWN = ("tokenizer*", "chat_template*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt")


def write_merged(folder: Path, source: Source, dtype: str) -> dict[str, Any]:
    """Writes the causal model with the adapters in its weights, and returns what export.json says of it.

    Args:
        folder: of the export.
        source: the trained model.
        dtype: of the weights: bfloat16 or float32.
    """
    model: Any = merged_model(source)
    model = model.to(dtype_named(dtype))
    model.config.dtype = dtype_named(dtype)
    model.config.pad_token_id = source.prompt.tokenizer.pad_token_id
    for key in ("quantization_config", "_model_name_or_path"):
        model.config.__dict__.pop(key, None)
    model.save_pretrained(folder)
    write_tokenizers(folder, source, own=True)
    return {"slope": 1 / source.selected.temperature, "offset": source.selected.offset}


def write_adapter(folder: Path, source: Source, dtype: str) -> dict[str, Any]:
    """Writes the adapter in peft's format, and returns what export.json says of it.

    Args:
        folder: of the export.
        source: the trained model.
        dtype: not used: the adapter keeps its own.
    """
    method = source.method
    for name in ADAPTER_FILES:
        shutil.copyfile(source.folder / name, folder / name)
    config = read_json(folder / "adapter_config.json") | {"base_model_name_or_path": source.selected.base["id"]}
    write_record(folder / "adapter_config.json", config)
    write_tokenizers(folder, source, own=False)
    return {
        "slope": 1 / source.selected.temperature,
        "offset": source.selected.offset,
        "dtype": str(pick_dtype(method.dtype, pick_device())).removeprefix("torch."),
        "quantization": quantization(method),
    }


def quantization(method: Method) -> dict[str, Any]:
    """What transformers' BitsAndBytesConfig needs to quantize the base as training did; empty for none."""
    if method.load_in_8bit:
        return {"load_in_8bit": True}
    keys = ("load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")
    return {key: getattr(method, key) for key in keys} if method.load_in_4bit else {}


def write_tokenizers(folder: Path, source: Source, own: bool) -> None:
    """Writes the tokenizer that holds the prompt in a folder of its own, beside the base model's.

    Args:
        folder: of the export.
        source: the trained model.
        own: whether the base model's is written. With an adapter, peft would fit the embeddings to its length.
    """
    for file in (file for pattern in OWN for file in source.base_folder.glob(pattern) if own):
        shutil.copyfile(file, folder / file.name)
    (folder / SCORING).mkdir()
    write_tokenizer(folder / SCORING, source.prompt, source.selected.speakers_removed)
