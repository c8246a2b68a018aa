"""The base model is the one that was fetched and trained on."""

import shutil

import pytest

from stages.artifacts import write_json
from stages.errors import UserError
from stages.model.provenance import require_same_base, require_whole_base


def test_an_adapter_of_another_base_is_refused(base_folder, tmp_path):
    write_json(tmp_path / "base.json", {"id": "other/model", "sha256": "0" * 64})
    with pytest.raises(ValueError, match="trained on mine/model .* holds other/model"):
        require_same_base({"id": "mine/model", "sha256": "1" * 64}, tmp_path)


def test_an_adapter_of_the_same_weights_with_another_tokenizer_is_refused(tmp_path):
    one = {"id": "mine/model", "sha256": "1" * 64, "others_sha256": "2" * 64}
    write_json(tmp_path / "base.json", one)
    require_same_base(one, tmp_path)
    require_same_base({key: one[key] for key in ("id", "sha256")}, tmp_path)  # an old record
    with pytest.raises(UserError, match="with another configuration or tokenizer .hash 333333333333. than .*22222"):
        require_same_base(one | {"others_sha256": "3" * 64}, tmp_path)


def test_a_base_whose_files_changed_is_refused_and_fetched_anew(base_folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        folder = tmp_path / name
        shutil.copytree(base_folder, folder)
        require_whole_base(folder)
        content = (folder / name).read_bytes()
        for broken in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), None):
            (folder / name).unlink()
            if broken is not None:
                (folder / name).write_bytes(broken)
            with pytest.raises(UserError, match="not what was fetched.*dvc repro fetch --force"):
                require_whole_base(folder)
            (folder / name).write_bytes(content)
    with pytest.raises(UserError, match="holds no fetched model"):
        require_whole_base(tmp_path)
