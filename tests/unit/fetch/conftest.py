"""A folder of its own for each test, and a hub."""

import http.server
import threading

import pytest

from tests.unit.fetch.hub import Hub


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub(base_folder, monkeypatch):
    Hub.files = {file.name: file.read_bytes() for file in base_folder.iterdir() if file.name != "base.json"}
    Hub.files |= {"pytorch_model.bin": b"pickle", "modeling_evil.py": b"raise SystemExit"}
    Hub.asked = []
    Hub.breaks = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", constants.ENDPOINT)
    yield Hub
    server.shutdown()
