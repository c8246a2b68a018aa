"""A file of raw rows, and a project that prepare can run in."""

from pathlib import Path

import pytest


@pytest.fixture
def raw(tmp_path):
    def write(content: bytes) -> Path:
        file = tmp_path / "raw.jsonl"
        file.write_bytes(content)
        return file

    return write


@pytest.fixture
def project(tmp_path, monkeypatch, base_folder, changed):
    """Writes files below data/raw and params.yaml, and works in their folder."""

    def build(files: dict[str, str], values: dict) -> None:
        for name, content in files.items():
            (tmp_path / "data/raw" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data/raw" / name).write_text(content, encoding="utf-8")
        (tmp_path / "models").mkdir(exist_ok=True)
        if not (tmp_path / "models/base").exists():
            (tmp_path / "models/base").symlink_to(base_folder)
        changed({"evaluate/further_sets": {}} | values)  # writes params.yaml into tmp_path
        monkeypatch.chdir(tmp_path)

    return build
