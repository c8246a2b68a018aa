"""The trained model as one set of weights: adapters added to the weights that they were trained on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from stages.classifier.trained import TrainedClassifier, read_selected
from stages.errors import UserError
from stages.model.layout import underlying
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import load_adapter
from stages.model.packed_attention import attend_as_shipped
from stages.model.provenance import require_same_base, require_whole_base
from stages.params import Method
from stages.text.prompt import Prompt, build_prompt


@dataclass(frozen=True, eq=False)
class Source:
    """What is exported.

    Attributes:
        folder: models/selected.
        base_folder: models/base.
        selected: the record.
        prompt: as in training.
    """

    folder: Path
    base_folder: Path
    selected: TrainedClassifier
    prompt: Prompt

    @property
    def method(self) -> Method:
        return Method(**self.selected.method)


def read_source(folder: Path, base_folder: Path) -> Source:
    """Reads all but the weights, and checks that the base model is the one of training. Raises UserError for what no
    export can express."""
    selected = read_selected(folder)
    require_expressible(selected)
    require_whole_base(base_folder)
    require_same_base(selected.base, base_folder)
    prompt = build_prompt(load_tokenizer(base_folder), **selected.prompt, rendered=selected.rendered)
    return Source(folder, base_folder, selected, prompt)


def require_expressible(selected: TrainedClassifier) -> None:
    """Raises UserError for a system, or a way to read texts, that only this project's own code has."""
    found = {
        "select.system": (selected.system, "model"),
        "prompt.repetitions": (selected.prompt.get("repetitions", 1), 1),
    }
    for key, (value, expected) in found.items():
        if value != expected:
            raise UserError(
                f"models/selected has {key} {value}; expected {expected}, the only one that an export can express: "
                f"set it and run `dvc repro`, or use `python -m stages.predict`"
            )
    if selected.prompt.get("truncation_side", "right") == "middle":
        raise UserError(
            "models/selected has prompt.truncation_side middle; expected right or left, since a tokenizer of an "
            "export can't keep both ends of a text: set one and run `dvc repro`, or use `python -m stages.predict`"
        )


def merged_model(source: Source) -> PreTrainedModel:
    """The causal model with the adapters in its weights, in float32.

    Quantized weights are unpacked first: those are what the adapters were trained on. Raises UserError where an adapter
    changes embeddings that are the output head too.
    """
    method = source.method
    quantized = method.load_in_4bit or method.load_in_8bit
    method = replace(method, residency="dequantized" if quantized else "quantized")
    adapted = load_adapter(load_base(method, source.base_folder), source.folder)
    base = underlying(adapted)
    attend_as_shipped(base)
    embeddings: Any = base.get_input_embeddings().weight
    layers: list[Any] = [module.get_base_layer() for module in adapted.modules() if isinstance(module, LoraLayer)]
    if any(layer.weight.data_ptr() == embeddings.data_ptr() for layer in layers):
        raise UserError(
            "train.target_modules adapts embeddings that are the output head too, so the adapters can't become part "
            "of the weights: leave them out and train again, or export adapter"
        )
    merged: Any = adapted.float().merge_and_unload()
    return merged


def label_direction(model: PreTrainedModel, prompt: Prompt) -> tuple[np.ndarray, float]:
    """The head's row of the label word true less that of false, float64 of shape (width,), and the same of its bias."""
    head: Any = model.get_output_embeddings()
    words = [prompt.label_ids[True], prompt.label_ids[False]]
    true, false = head.weight.detach()[words].double().cpu().numpy()
    bias = 0.0 if head.bias is None else float(head.bias[words[0]].double() - head.bias[words[1]].double())
    return true - false, bias


def dtype_named(name: str) -> torch.dtype:
    return getattr(torch, name)
