"""A project in which prepare and probe have run on a part of the sample, and whose training is one adapter."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from stages import params
from stages.artifacts import write_csv, write_json
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import attach_adapter
from stages.paths import CHECKPOINTS, PLOTS, PROMPT_FILE
from stages.prepare.__main__ import main as prepare
from stages.probe.__main__ import main as probe
from stages.text.prompt import build_prompt
from tests.conftest import METHODS, ROOT

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def project(tmp_path_factory, base_folder) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    shutil.copytree(base_folder, folder / "models/base")
    lines = (ROOT / "data/sample/pool.jsonl").read_text(encoding="utf-8").splitlines()[:240]
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    sms = [json.dumps(json.loads(line) | {"input": json.loads(line)["input"][:40]}) for line in lines[:30]]
    (folder / "data/raw/sms.jsonl").write_text("\n".join(sms), encoding="utf-8")
    raw = params.read_yaml(ROOT / "params.yaml")
    raw |= {"dataset": "part", "method": "lora"}
    raw["datasets"]["part"] = {"pool": "data/raw/a.jsonl"}
    raw["methods"]["lora"] = {"dtype": "bfloat16"}  # so that a score depends on its batch
    raw["prompt"]["max_length"] = 128
    raw["evaluate"] |= {"bootstrap_samples": 20, "further_sets": {"sms": "data/raw/sms.jsonl"}}
    write_params(folder, raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prepare()
        probe()
        make_checkpoint(raw["prompt"])
    return folder


def write_params(folder: Path, raw: dict) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")


def make_checkpoint(prompt: dict) -> None:
    """An adapter with random weights, as training leaves one."""
    base = Path("models/base")
    model = attach_adapter(load_base(METHODS["lora"], base, CPU), params.load().train)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    model.save_pretrained(CHECKPOINTS / "checkpoint-1")
    write_json(CHECKPOINTS / PROMPT_FILE, build_prompt(load_tokenizer(base), **prompt).rendered)
    row = {"step": 1, "loss": 1.0, "average_precision": 0.5, "f1": 0.5}
    write_csv(PLOTS / "valid.csv", [row], list(row))
