"""export.json, which says what an exported folder is and how its numbers become a verdict."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipy.special import expit, logit

from stages.artifacts import read_json, replacing
from stages.bands import Bands
from stages.errors import UserError
from stages.export.merge import Source
from stages.export.tokenizer import tokens_around

RECORD_FILE = "export.json"
VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers")
FURTHER = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "gguf": ("llama-cpp-python",)}


def make_record(kind: str, dtype: str, source: Source, written: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an export. Plain consumers compare their own probability with `threshold`.

    Args:
        kind, dtype: of the export.
        source: the trained model.
        written: what the writer of this kind says: slope and offset of the artefact's log-odds, and more.
    """
    selected, prompt = source.selected, source.prompt
    base = selected.base
    return {
        "kind": kind,
        "weights": dtype,
        "labels": ["legitimate", "fraud"],
        "probability_threshold": selected.threshold,
        "threshold": plain_threshold(selected.threshold, written["offset"]),
        "max_length": prompt.room,
        "prompt_ids": tokens_around(prompt),
        "label_ids": {"legitimate": prompt.label_ids[False], "fraud": prompt.label_ids[True]},
        "pad_token_id": prompt.tokenizer.pad_token_id,
        "speakers_removed": selected.speakers_removed,
        "truncation_side": prompt.truncation_side,
        "prompt": prompt.rendered,
        "base": {key: base[key] for key in ("id", "revision", "license", "sha256", "source") if key in base},
        "trained_with": selected.method_name,
        "dataset": selected.dataset_name,
        "versions": {name: importlib.metadata.version(name) for name in (*VERSIONS, *FURTHER.get(kind, ()))}
        | {"python": platform.python_version()},
        **written,
        **band_keys(selected.edges, written["offset"]),
    }


def band_keys(bands: Bands | None, offset: float) -> dict[str, dict[str, float]]:
    """The bands, for the calibrated and for the plain probability; empty without bands."""
    if bands is None:
        return {}
    edges = bands.as_dict()
    return {
        "probability_bands": edges,
        "bands": {name: plain_threshold(edge, offset) for name, edge in edges.items()},
    }


def plain_threshold(threshold: float, offset: float) -> float:
    """The threshold of the probabilities of an artefact, whose head has no bias: they lack the offset."""
    return threshold if threshold > 1 else float(expit(logit(threshold) - offset))  # above 1: no text is called fraud


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Writes JSON that may hold lists, unlike metrics."""
    with replacing(path) as file:
        json.dump(record, file, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)
        file.write("\n")


def read_record(folder: Path) -> dict[str, Any]:
    """The record in a folder. Raises UserError if there is none."""
    if not (folder / RECORD_FILE).is_file():
        raise UserError(f"{folder} holds no {RECORD_FILE}; expected a folder that `python -m stages.export` wrote")
    return read_json(folder / RECORD_FILE)
