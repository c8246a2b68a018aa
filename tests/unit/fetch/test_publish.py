"""A fetched model is published whole, and not fetched again unless it was altered."""

import dataclasses
import json
import shutil

import pytest

from stages.artifacts import read_json
from stages.fetch.publish import FetchError, already_fetched, publish, staging_folder, write_identity
from stages.fetch.sources import from_folder
from stages.params import Model
from tests.unit.fetch.hub import COMMIT


def test_a_model_that_is_there_is_not_fetched_again_unless_it_was_altered(base_folder, tmp_path):
    target = tmp_path / "base"
    shutil.copytree(base_folder, target)
    model = Model(source="hub", id="mine/tiny", revision=COMMIT, license="mit")
    assert already_fetched(model, target) is None  # of another source
    base = read_json(base_folder / "base.json")
    record = write_identity(target, model, {key: base[key] for key in ("sha256", "others_sha256")})
    assert already_fetched(model, target) == record
    relicensed = dataclasses.replace(model, license="apache-2.0")
    assert already_fetched(relicensed, target)["license"] == read_json(target / "base.json")["license"] == "apache-2.0"
    assert already_fetched(dataclasses.replace(model, revision="b" * 40), target) is None
    with (target / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x00")  # of a norm that ends on 0x3f
    assert already_fetched(model, target) is None


def test_a_missing_shard_is_named(base_folder, tmp_path):
    shutil.copytree(base_folder, tmp_path / "half")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "half" / "model.safetensors.index.json").write_text(json.dumps(index))
    model = Model(source="folder", path="half")
    with pytest.raises(FetchError, match="names model-00002-of-00002.safetensors, which are missing"):
        publish(tmp_path / "half", model, tmp_path / "base", staging_folder(model))


def test_a_folder_of_pickles_is_refused_and_the_present_model_stays(base_folder, tmp_path):
    (tmp_path / "origin").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "origin" / name).write_bytes((base_folder / name).read_bytes())
    (tmp_path / "origin" / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "kept").write_text("")
    model = Model(source="folder", path=str(tmp_path / "origin"))
    staging = staging_folder(model)
    with pytest.raises(FetchError, match="no .safetensors file; pickled weights can run code"):
        publish(from_folder(model, staging), model, tmp_path / "base", staging)
    assert (tmp_path / "base" / "kept").exists()
