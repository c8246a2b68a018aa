"""A project whose selected system is the baseline, and servers on it."""

import contextlib
import dataclasses
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from starlette.testclient import TestClient

from benchmarks.server import ServerProcess
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

        def start(load=lambda: classifier, client=("127.0.0.1", 1), wait=True, **given) -> TestClient:
            files = {"audit_folder": tmp_path / "audit", "verdicts": tmp_path / "reviewed.jsonl"}
            settings = Settings(**files | given)
            folder = Path("models/selected")
            server = Server(settings, load, lambda: identity(folder), lambda: operating_points(folder))
            app = create_app(server)
            found = TestClient(app, base_url="http://localhost", client=client, raise_server_exceptions=False)
            found.server = server
            stack.enter_context(found)
            deadline = time.monotonic() + 30
            while wait and not server.worker.is_ready and server.worker.failed is None and time.monotonic() < deadline:
                time.sleep(0.005)
            return found

        yield start


@pytest.fixture
def start_process(served, tmp_path):
    """Starts servers as processes of their own, and ends what is left of them."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: object, files: bool = True) -> ServerProcess:
            own = ["--audit-folder", tmp_path / "audit", "--verdicts", tmp_path / "reviewed.jsonl"]
            return stack.enter_context(ServerProcess(*(own if files else []), *arguments, folder=served))

        yield start
