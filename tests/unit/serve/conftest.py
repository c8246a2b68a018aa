"""A project whose selected system is the baseline, and servers on it."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from starlette.testclient import TestClient

from stages.api import load
from stages.artifacts import write_csv, write_json
from stages.classifier.baseline import Baseline, make_vectorizer, write_baseline
from stages.classifier.trained import TrainedClassifier
from stages.metrics import score_metrics
from stages.serve.app import Server, create_app
from stages.serve.identity import identity
from stages.serve.operating import operating_points
from stages.serve.settings import Settings
from stages.text.example import Example, write_examples
from tests.conftest import ROOT

START_SECONDS = 120


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Path:
    """A project as `dvc repro` leaves it, with select.system baseline: half a second to load."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    lines = (ROOT / "data/sample/pool.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    train, valid = rows[:400], rows[400:500]
    vectorizer = make_vectorizer((1, 2))
    found = vectorizer.fit_transform([row["input"] for row in train])
    fitted = LogisticRegression(C=10).fit(found, [row["label"] for row in train])
    ngrams = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)
    weight, intercept = fitted.coef_[0].astype(float), float(fitted.intercept_[0])
    baseline = Baseline((1, 2), ngrams, vectorizer.idf_.astype(np.float32), weight, intercept)
    write_baseline(folder / "models/selected/baseline", baseline)

    log_odds = baseline.log_odds([row["input"] for row in valid])
    write_csv(
        folder / "data/processed/baseline/valid.csv", ({"log_odds": repr(float(v))} for v in log_odds), ["log_odds"]
    )
    examples = [Example(row["input"], row["label"]) for row in valid]
    write_examples(folder / "data/processed/valid.jsonl", examples)
    probability = 1 / (1 + np.exp(-log_odds))
    metrics = score_metrics([row["label"] for row in valid], probability, 0.4, log_odds)
    selected = TrainedClassifier(
        step=1,
        threshold=0.4,
        temperature=1.0,
        speakers_removed=False,
        valid=metrics,
        promised={"fraud_fraction": 0.5},
        select={},
        method_name="qlora",
        method={},
        prompt={},
        base={"id": "tiny", "revision": "1", "license": "none", "sha256": ""},
        dataset_name="sample",
        scoring=2,
        system="baseline",
    )
    write_json(folder / "models/selected/selected.json", dataclasses.asdict(selected))
    return folder


@pytest.fixture(scope="session")
def classifier(served):
    return load(served / "models/selected")


@pytest.fixture
def serve(served, classifier, tmp_path, monkeypatch):
    """Starts a server in this process, and returns a client of it. Settings as given; its files are in tmp_path."""
    monkeypatch.chdir(served)
    with contextlib.ExitStack() as stack:

        def start(load=lambda: classifier, client=("127.0.0.1", 1), **given) -> TestClient:
            files = {"audit_folder": tmp_path / "audit", "verdicts": tmp_path / "reviewed.jsonl"}
            settings = Settings(**files | given)
            folder = Path("models/selected")
            server = Server(settings, load, lambda: identity(folder), lambda: operating_points(folder))
            app = create_app(server)
            found = TestClient(app, base_url="http://localhost", client=client, raise_server_exceptions=False)
            found.server = server
            stack.enter_context(found)
            deadline = time.monotonic() + 30
            while not server.worker.is_ready and server.worker.failed is None and time.monotonic() < deadline:
                time.sleep(0.005)
            return found

        yield start


class Process:
    """A server as a process of its own, on a free port.

    Args:
        folder: the working directory.
        arguments: of the command line.
    """

    def __init__(self, folder: Path, *arguments: object):
        command = [sys.executable, "-m", "stages.serve", "--port", "0", *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout
        self.said = self.process.stdout.readline()
        assert "http://" in self.said, self.said + self.process.stdout.read()
        self.url = self.said.split()[1]
        self.port = int(self.url.rpartition(":")[2])

    def wait_ready(self) -> "Process":
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"{self.url}/readyz", timeout=5).status == 200:
                    return self
            assert self.process.poll() is None, self.process.stdout.read()
            time.sleep(0.1)
        raise AssertionError(f"not ready after {START_SECONDS} s")

    def classify(self, text: str, timeout: float = 60) -> dict:
        return self.post("/v1/classify", {"input": text}, timeout)

    def post(self, path: str, values: dict, timeout: float = 60) -> dict:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(values).encode(), headers)
        return json.loads(urllib.request.urlopen(request, timeout=timeout).read())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Sends a signal, and returns the status and what was printed."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=60)
        return self.process.returncode, self.said + rest

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def start_process(served, tmp_path):
    """Starts servers as processes, and kills what is left of them."""
    started = []

    def start(*arguments: object) -> Process:
        files = ["--audit-folder", tmp_path / "audit", "--verdicts", tmp_path / "reviewed.jsonl"]
        started.append(Process(served, *files, *arguments))
        return started[-1].wait_ready()

    yield start
    for process in started:
        process.close()
