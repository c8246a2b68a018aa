"""Predict from the command line: pipes, devices, links, ends midway, resuming, and rows that come back as written."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import params
from stages.model.adapter import attach_adapter
from stages.model.identity import read_identity
from stages.model.load import load_base, load_tokenizer
from stages.model.score import WINDOW, label_scores
from stages.model.selected import Selected, write_selected
from stages.text.prompt import build_prompt
from tests.conftest import METHODS, ROOT

COMMAND = [sys.executable, "-m", "stages.predict"]
PROMPT = {"instruction": "判断下面的文本是否涉及诈骗。", "max_length": 96, "repetitions": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, base_folder, sample_texts) -> Path:
    """A project's folder as predict needs it: the tiny base model and a selected adapter that is no copy of it."""
    folder = tmp_path_factory.mktemp("judging")
    shutil.copytree(base_folder, folder / "models/base")
    shutil.copyfile(ROOT / "accelerate.yaml", folder / "accelerate.yaml")
    chosen = params.load(ROOT / "params.yaml")
    model = attach_adapter(load_base(METHODS["lora"], base_folder, torch.device("cpu")), chosen.train)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    model.save_pretrained(folder / "checkpoint")
    prompt = build_prompt(load_tokenizer(base_folder), **PROMPT)
    selected = Selected(
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
    )
    scores = label_scores(model, prompt, sample_texts[:64], 4096, "")
    threshold = float(np.median(selected.probability(scores.log_odds)))
    write_selected(folder / "models/selected", folder / "checkpoint", selected.__class__(**vars(selected) | {"threshold": threshold}))
    return folder
