"""Export as a sequence classifier of plain transformers."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from stages.errors import UserError
from stages.export.merge import Source, label_direction, merged_model
from stages.export.tokenizer import write_tokenizer
from stages.model.device import pick_device, pick_dtype

LABELS = ("legitimate", "fraud")
HEAD = "score.weight"


def write_classifier(folder: Path, source: Source, dtype: str) -> dict[str, Any]:
    """Writes model and tokenizer, and returns what export.json says of them.

    Args:
        folder: of the export.
        source: the trained model.
        dtype: of the weights: float32, bfloat16, or nf4 (bitsandbytes, with bfloat16 where this device computes in it).
    """
    model: Any
    model, bias = sequence_classifier(source)
    write_tokenizer(folder, source.prompt, source.selected.speakers_removed)
    plain = pick_dtype("auto", pick_device()) if dtype == "nf4" else getattr(torch, dtype)
    model = model.to(plain)
    model.config.dtype = plain
    model.save_pretrained(folder)
    if dtype == "nf4":
        quantize(folder, plain)
    return {"slope": 1.0, "offset": source.selected.offset + bias / source.selected.temperature}


def sequence_classifier(source: Source) -> tuple[PreTrainedModel, float]:
    """The classifier in float32, and what the bias of the output head adds to the log-odds before calibration.

    The head's row of "legitimate" is 0 and that of "fraud" is the difference of the label words' rows, over the
    temperature. So its second logit is the log-odds, and bfloat16 rounds it to 1/256 of itself. Logits of two whole
    rows are larger than their difference, and their rounding, too.
    """
    causal = merged_model(source)
    config = classifier_config(causal.config, source)
    direction, bias = label_direction(causal, source.prompt)
    rows = np.stack([np.zeros_like(direction), direction / source.selected.temperature])
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    head = causal.get_output_embeddings().weight
    state = {name: tensor for name, tensor in causal.state_dict().items() if not name.startswith("lm_head.")}
    missing, unexpected = model.load_state_dict(
        {**state, HEAD: torch.tensor(rows, dtype=torch.float32, device=head.device)}, strict=False, assign=True
    )
    if missing or unexpected:
        raise UserError(
            f"{type(model).__name__} does not have the weights of {type(causal).__name__}, such as "
            f"{[*missing, *unexpected][0]}; expected the same but for the head: export merged, or choose another base"
        )
    return model.eval(), bias


def classifier_config(config: PreTrainedConfig, source: Source) -> PreTrainedConfig:
    """The configuration with two labels. Raises UserError where transformers has no class for it, or one that scores
    otherwise."""
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"the pinned transformers has no sequence classifier for {config.model_type}; expected one: export merged "
            "or adapter, or choose another base model"
        )
    if getattr(config, "final_logit_softcapping", None):
        raise UserError(
            f"{config.model_type} soft-caps its logits at {config.final_logit_softcapping}, which its sequence "
            "classifier does not, so scores would differ: export merged or adapter, or choose another base model"
        )
    config = copy.deepcopy(config)
    for key in ("quantization_config", "_model_name_or_path", "architectures"):
        config.__dict__.pop(key, None)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: number for number, label in enumerate(LABELS)}
    config.problem_type = "single_label_classification"
    config.pad_token_id = source.prompt.tokenizer.pad_token_id
    config.use_cache = False
    return config


def quantize(folder: Path, dtype: torch.dtype) -> None:
    """Quantizes the decoder layers of a written classifier in place."""
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["score"],
    )
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        quantization_config=config,
        dtype=dtype,
        device_map={"": pick_device()},
        local_files_only=True,
        trust_remote_code=False,
    )
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    model.save_pretrained(folder)


def scale_head(folder: Path, slope: float) -> None:
    """Multiplies the head of a written classifier, and so its log-odds."""
    index = folder / "model.safetensors.index.json"
    name = "model.safetensors"
    if index.exists():
        name = json.loads(index.read_text(encoding="utf-8"))["weight_map"][HEAD]
    with safe_open(folder / name, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
        metadata = file.metadata()
    tensors[HEAD] = (tensors[HEAD].double() * slope).to(tensors[HEAD].dtype)
    save_file(tensors, folder / name, metadata)
