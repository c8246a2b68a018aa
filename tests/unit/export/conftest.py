"""A project with a selected model, valid and test. Its calibration has an offset, and speakers are removed."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from stages import params
from stages.classifier.trained import TrainedClassifier, write_classifier
from stages.data.speakers import remove_speakers
from stages.export.__main__ import main
from stages.fetch.publish import publish
from stages.metrics import ThresholdRule, choose_threshold, decision_metrics, fit_calibration
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import attach_adapter
from stages.model.provenance import read_identity
from stages.model.scoring import SCORING, label_scores
from stages.params import Model
from stages.text.example import Example, write_examples
from stages.text.prompt import build_prompt
from tests.conftest import METHODS, ROOT

PROMPT = {"instruction": "判断下面的文本是否涉及诈骗。", "max_length": 96, "truncation_side": "right"}
METHOD = "qlora"


@pytest.fixture(scope="package")
def gemma_base(tmp_path_factory, tokenizer) -> Path:
    """A tiny random Gemma 3, the architecture of the default model, as the fetch stage leaves it."""
    folder = tmp_path_factory.mktemp("gemma")
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=32,
        layer_types=["sliding_attention", "full_attention"],
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Gemma3ForCausalLM(config).save_pretrained(folder / "made")
    tokenizer.save_pretrained(folder / "made")
    publish(folder / "made", Model(source="folder", path="tiny"), folder / "base", folder / "staging")
    return folder / "base"


@pytest.fixture(scope="package")
def project(tmp_path_factory, gemma_base, sample_texts) -> Path:
    folder = tmp_path_factory.mktemp("export")
    base_folder = Path(shutil.copytree(gemma_base, folder / "models/base"))
    raw = params.read_yaml(ROOT / "params.yaml")
    raw["evaluate"]["bootstrap_samples"] = 20
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    method = METHODS[METHOD]
    cpu = torch.device("cpu")
    model = attach_adapter(load_base(method, base_folder, cpu), params.load(ROOT / "params.yaml").train)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    model.save_pretrained(folder / "checkpoint")
    prompt = build_prompt(load_tokenizer(base_folder), **PROMPT)
    scores = label_scores(model, prompt, [remove_speakers(text) for text in sample_texts[:80]], 4096, "").log_odds
    labels = write_sets(folder, sample_texts[:80], scores)
    calibration = fit_calibration(labels[:40], scores[:40], "platt")
    rule = ThresholdRule.from_section(raw["select"])
    probability = calibration.probability(scores[:40])
    threshold = choose_threshold(labels[:40], probability, rule)
    selected = TrainedClassifier(
        step=1,
        threshold=threshold,
        temperature=calibration.temperature,
        offset=calibration.offset,
        speakers_removed=True,
        valid=decision_metrics(labels[:40], probability >= threshold),
        promised={"precision": 0.5, "recall": 0.5, "average_precision": 0.5, "fraud_fraction": 0.5},
        select=raw["select"],
        method_name=METHOD,
        method=asdict(method),
        prompt=PROMPT,
        base=read_identity(base_folder),
        dataset_name="sample",
        rendered=prompt.rendered,
        scoring=SCORING,
    )
    write_classifier(folder / "models/selected", folder / "checkpoint", selected, "", scores[:40])
    return folder


def write_sets(folder: Path, texts: list[str], scores: np.ndarray) -> np.ndarray:
    """valid and test, whose labels mostly follow the scores, so that a calibration has something to fit. Returns the
    labels."""
    middle = sorted(scores)[len(scores) // 2]
    (folder / "data/processed").mkdir(parents=True)
    rows = [
        Example(text, bool(score > middle) ^ (n % 7 == 0), unit=n)
        for n, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]
    write_examples(folder / "data/processed/valid.jsonl", rows[:40])
    write_examples(folder / "data/processed/test.jsonl", rows[40:])
    return np.array([row.label for row in rows])


@pytest.fixture(scope="package")
def export(project) -> Callable[..., Path]:
    """Runs the command in the project, and returns the folder that it wrote."""

    def run(*arguments: str, out: str = "") -> Path:
        name = out or "-".join(arguments).replace("--", "")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(project)
            patch.setattr(sys, "argv", ["export", *arguments, "--out", f"exports/{name}"])
            main()
        return project / "exports" / name

    return run


@pytest.fixture(scope="package")
def classifier_folder(export) -> Path:
    return export("classifier")
