"""A tiny model of the real architecture with a tokenizer trained here: everything but the weights is as in use."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from tqdm.std import TqdmDefaultWriteLock
from transformers import PreTrainedTokenizerFast

from stages import params
from stages.fetch.publish import publish
from stages.params import Method, Model, Train
from stages.text.example import Example
from stages.text.prompt import build_prompt
from tools.tiny import train_tokenizer, write_model

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DVC_TEST"] = "true"  # DVC starts no processes that report, or look for a new version, and outlive a test
# On some processors several threads sum in another order from run to run, and tests compare bytes.
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)
# Forked processes would share this lock of progress bars, and one that is killed with it would block all later ones.
TqdmDefaultWriteLock.mp_lock = None
ROOT = Path(__file__).parents[1]
METHODS = {
    "lora": Method(dtype="float32"),
    "lora-int8": Method(dtype="float32", load_in_8bit=True),
    "qlora": Method(dtype="float32", load_in_4bit=True),
    "qlora-dq": Method(dtype="float32", load_in_4bit=True, bnb_4bit_use_double_quant=True),
    "qlora-dequantized": Method(dtype="float32", load_in_4bit=True, residency="dequantized"),
}


@pytest.fixture(scope="session")
def sample_texts() -> list[str]:
    lines = (ROOT / "data/sample/pool.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["input"] for line in lines]


@pytest.fixture(scope="session")
def tokenizer(sample_texts) -> PreTrainedTokenizerFast:
    return train_tokenizer(sample_texts[:200])


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory, tokenizer) -> Path:
    """A two-layer random Qwen2 as the fetch stage leaves it."""
    folder = tmp_path_factory.mktemp("tiny")
    made = folder / "made"
    write_model(made, tokenizer)
    publish(made, Model(source="folder", path="tiny"), folder / "base", folder / "staging")
    return folder / "base"


@pytest.fixture
def dated_base(base_folder, tmp_path, tokenizer) -> Path:
    """The tiny base with a chat template that writes the time into the prompt."""
    shutil.copytree(base_folder, tmp_path / "made")
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = (
        "{{ strftime_now('%Y-%m-%d %H:%M:%S.%f') }} "
        "{% for message in messages %}{{ message.content }}<|im_end|>{% endfor %}"
    )
    dated.save_pretrained(tmp_path / "made")
    publish(tmp_path / "made", Model(source="folder", path="dated"), tmp_path / "dated", tmp_path / "staging")
    return tmp_path / "dated"


@pytest.fixture(scope="session")
def prompt(tokenizer):
    return build_prompt(tokenizer, "判断下面的文本是否涉及诈骗。", 256)


@pytest.fixture(scope="session")
def train_params() -> Train:
    return params.load(ROOT / "params.yaml").train


@pytest.fixture
def changed(tmp_path):
    """Writes params.yaml with changes {dotted key: value}, None to drop the key, and returns its path."""

    def write(changes: dict) -> Path:
        raw = params.read_yaml(ROOT / "params.yaml")
        for dotted, value in changes.items():
            *path, last = dotted.split("/")
            section = raw
            for key in path:
                section = section[key]
            if value is None:
                del section[last]
            else:
                section[last] = value
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def examples(sample_texts):
    """Texts whose label the tiny model can learn: which mark fills their end."""
    return [
        Example(text[:20] + ("！！" if n % 2 else "。。") * 8, bool(n % 2)) for n, text in enumerate(sample_texts[:48])
    ]
