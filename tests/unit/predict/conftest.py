"""A project with a selected model, and a file of three windows and a half."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import params
from stages.classifier.trained import TrainedClassifier, write_classifier
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import attach_adapter
from stages.model.provenance import read_identity
from stages.model.scoring import SCORING, label_scores
from stages.text.prompt import build_prompt
from tests.conftest import METHODS, ROOT
from tests.unit.predict.process import SIZE, Started, rows_of

PROMPT = {"instruction": "判断下面的文本是否涉及诈骗。", "max_length": 96, "truncation_side": "right"}


@pytest.fixture(scope="package")
def folder(tmp_path_factory, base_folder, sample_texts) -> Path:
    """A project's folder as predict needs it: the tiny base model and a selected adapter that is no copy of it."""
    folder = tmp_path_factory.mktemp("predict")
    shutil.copytree(base_folder, folder / "models/base")
    for name in ("accelerate.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    chosen = params.load(ROOT / "params.yaml")
    model = attach_adapter(load_base(METHODS["lora"], base_folder, torch.device("cpu")), chosen.train)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    model.save_pretrained(folder / "checkpoint")
    prompt = build_prompt(load_tokenizer(base_folder), **PROMPT)
    selected = TrainedClassifier(
        step=1,
        threshold=0.5,
        temperature=1.0,
        speakers_removed=False,
        valid={},
        promised={"precision": 0.5, "recall": 0.5, "average_precision": 0.5, "fraud_fraction": 0.5},
        select={"metric": "f1"},
        method_name="lora",
        method={"dtype": "float32"},
        prompt=PROMPT,
        base=read_identity(base_folder),
        dataset_name="sample",
        rendered=prompt.rendered,
        scoring=SCORING,
    )
    scores = label_scores(model, prompt, sample_texts[:64], 4096, "")
    middle = float(np.median(selected.probability(scores.log_odds)))
    selected = replace(selected, threshold=middle)
    write_classifier(folder / "models/selected", folder / "checkpoint", selected, "", scores.log_odds)
    return folder


@pytest.fixture(scope="package", autouse=True)
def small_windows():
    with pytest.MonkeyPatch.context() as patch:
        for module in ("model.scoring", "predict.read", "predict.output"):
            patch.setattr(f"stages.{module}.WINDOW", SIZE)
        yield


@pytest.fixture(scope="package")
def predict(folder) -> Callable[..., Started]:
    """Runs predict to its end, which must be good."""

    def start(*arguments: object, **streams) -> Started:
        started = Started(folder, *arguments, **streams)
        code = started.wait()
        assert code == 0, started.said
        return started

    return start


@pytest.fixture(scope="package")
def rows() -> list[bytes]:
    """Three windows and a half."""
    return rows_of(3 * SIZE + SIZE // 2)


@pytest.fixture
def file(tmp_path, rows) -> Path:
    (tmp_path / "new.jsonl").write_bytes(b"".join(rows))
    return tmp_path / "new.jsonl"


@pytest.fixture(scope="package")
def undisturbed(predict, rows, tmp_path_factory) -> bytes:
    """What an undisturbed run makes of the file."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "new.jsonl").write_bytes(b"".join(rows))
    predict("--file", folder / "new.jsonl", "--out", folder / "o.jsonl")
    return (folder / "o.jsonl").read_bytes()
