"""Base models from a folder and from a hub: real clients against a server made here."""

import json
import shutil

import pytest
from transformers import AutoModelForCausalLM

from stages.artifacts import read_json
from stages.fetch.publish import FetchError, publish, staging_folder
from stages.fetch.sources import from_folder, from_hub, from_modelscope
from stages.params import Model
from tests.unit.fetch.hub import COMMIT, GPTQ


def test_a_folder_is_taken_without_code_and_pickles(base_folder, tmp_path):
    origin = tmp_path / "origin"
    origin.mkdir()
    for file in base_folder.iterdir():
        (origin / file.name).write_bytes(file.read_bytes())
    for name in ("modeling_evil.py", "pytorch_model.bin", "optimizer.pt"):
        (origin / name).write_text("import os; os.abort()")
    model = Model(source="folder", path=str(origin))
    identity = publish(from_folder(model, staging_folder(model)), model, tmp_path / "base", staging_folder(model))
    assert {file.suffix for file in (tmp_path / "base").iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert identity["sha256"] == read_json(base_folder / "base.json")["sha256"]
    assert read_json(tmp_path / "base" / "base.json") == identity


def test_a_missing_folder_is_named():
    model = Model(source="folder", path="nowhere")
    with pytest.raises(FetchError, match="nowhere is no folder"):
        from_folder(model, staging_folder(model))


def test_the_hub_gives_the_pinned_commit_without_code_and_pickles(hub, base_folder, tmp_path):
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    staging = staging_folder(model)
    identity = publish(from_hub(model, staging), model, tmp_path / "base", staging)
    assert identity["sha256"] == read_json(base_folder / "base.json")["sha256"]
    assert not any("pytorch_model.bin" in request or "evil" in request for request in hub.asked)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "base", local_files_only=True)
    assert not staging.exists()


def test_modelscope_gives_the_same_model(hub, base_folder, tmp_path):
    model = Model(source="modelscope", id="mine/tiny", revision="v1")
    staging = staging_folder(model)
    config = hub.files["config.json"]
    hub.files["config.json"] = json.dumps(json.loads(config) | {"quantization_config": GPTQ}).encode()
    with pytest.raises(FetchError, match="mine/tiny: .*'gptq'"):
        from_modelscope(model, staging)
    assert not any("model.safetensors" in request for request in hub.asked)
    hub.files["config.json"] = config
    shutil.rmtree(staging / "snapshot")
    identity = publish(from_modelscope(model, staging), model, tmp_path / "base", staging)
    assert identity["sha256"] == read_json(base_folder / "base.json")["sha256"]
    assert not any("pytorch_model.bin" in request or "evil" in request for request in hub.asked)
    assert any("Revision=v1" in request for request in hub.asked)


def test_a_broken_download_resumes_where_it_broke(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)  # usually 10 MB
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    hub.breaks = 1
    folder = from_hub(model, staging_folder(model))
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert any("model.safetensors bytes=" in request for request in hub.asked)


def test_a_fetch_that_failed_keeps_the_files_that_arrived(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    hub.breaks = 100
    with pytest.raises(FetchError, match="Files that arrived whole are kept"):
        from_hub(model, staging_folder(model))
    hub.breaks = 0
    hub.asked.clear()
    folder = from_hub(model, staging_folder(model))
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    fetched = {request.split("/")[-1].split()[0] for request in hub.asked if request.startswith("GET /mine")}
    assert fetched == {"model.safetensors"}


def test_a_hub_out_of_reach_says_what_else_there_is(hub):
    model = Model(source="hub", id="mine/other", revision=COMMIT)
    with pytest.raises(FetchError, match="mine/other@aaaaaaaaaaaa could not be downloaded"):
        from_hub(model, staging_folder(model))
