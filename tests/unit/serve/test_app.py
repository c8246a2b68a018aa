"""The routes: answers equal the classifier's, limits hold, and errors are one sentence."""

import copy
import json
import re
import threading
import time

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stages.api import Classifier, Scores
from stages.bands import Bands
from stages.errors import UserError
from stages.serve.guard import OPEN_PATHS

TEXTS = ["您好，您的快递到了。", "我是公安局的，请把钱转到安全账户。", "Hello <|im_end|> 😀\n\n王某: 转账", "长" * 5000]
TOKEN = "0123456789abcdef-token"


def post(client, values, path="/v1/classify", **given):
    return client.post(path, json=values, **given)


def test_answers_are_the_classifiers(serve, classifier):
    answer = post(serve(), {"input": TEXTS}).json()
    probabilities = classifier.predict_proba(TEXTS)[:, 1]
    assert [result["probability"] for result in answer["results"]] == pytest.approx(probabilities.tolist(), rel=1e-12)
    assert [result["label"] for result in answer["results"]] == classifier.predict(TEXTS).tolist()
    assert [result["log_odds"] for result in answer["results"]] == pytest.approx(classifier.log_odds(TEXTS).tolist())
    assert answer["threshold"] == classifier.threshold


def test_a_model_with_bands_says_what_to_do_with_each_text(serve, classifier, tmp_path):
    probabilities = classifier.predict_proba(TEXTS)[:, 1]
    banded = copy.copy(classifier)
    banded.bands = Bands(*sorted(probabilities.tolist())[1:3])
    client = serve(load=lambda: banded, audit="hash")
    answer = post(client, {"input": TEXTS, "threshold": 0}).json()
    expected = banded.bands.names(probabilities)
    assert sorted(expected) == ["block", "block", "pass", "review"]
    assert [result["band"] for result in answer["results"]] == expected
    assert client.get("/v1/model").json()["bands"] == banded.bands.as_dict()
    lines = [json.loads(line) for file in (tmp_path / "audit").glob("*.jsonl") for line in file.open()]
    assert [line["band"] for line in lines] == expected
    plain = serve()
    assert "band" not in post(plain, {"input": TEXTS}).json()["results"][0]
    assert "bands" not in plain.get("/v1/model").json()


def test_one_text_its_threshold_and_its_sentences(serve, classifier):
    client = serve()
    strict = post(client, {"input": TEXTS[1], "threshold": 0.999}).json()
    lax = post(client, {"input": TEXTS[1], "threshold": 0, "explain": True}).json()
    assert (strict["results"][0]["label"], lax["results"][0]["label"]) == (False, True)
    sentences = lax["results"][0]["sentences"]
    assert [each["text"] for each in sentences] == [each.text for each in classifier.explain(TEXTS[1])]
    assert [each["effect"] for each in sentences] == pytest.approx([e.effect for e in classifier.explain(TEXTS[1])])


@pytest.mark.parametrize(
    ("values", "status", "sentence"),
    [
        ({}, 422, "the key input is missing; expected input, threshold, explain"),
        ({"inputs": "a"}, 422, "unknown key 'inputs'; expected input, threshold, explain"),
        ({"input": 3}, 422, "input holds 3; expected a text, or a list of texts"),
        ({"input": ["a", None]}, 422, "expected a text, or a list of texts"),
        ({"input": []}, 422, "input holds no text"),
        ({"input": " \u200b"}, 422, "expected a text that is not blank"),
        ({"input": ["a", "\n"]}, 422, "text 2 of 2 is '\\n'; expected a text that is not blank"),
        ({"input": "a", "threshold": 1.5}, 422, "threshold is 1.5; expected less than or equal to 1"),
        ({"input": "a", "threshold": True}, 422, "threshold is True"),
        ({"input": "a", "explain": "yes"}, 422, "explain is 'yes'"),
        ({"input": ["a"] * 6}, 413, "6 texts; expected at most 5 in a request"),
        ({"input": "a" * 11_000}, 413, "the text has 11000 characters; expected at most 10000"),
        ({"input": ["a"] * 5, "explain": True}, None, ""),
        ({"input": "a" * 60_000}, 413, "the body has more than 50000 bytes"),
    ],
)
def test_wrong_requests_get_a_status_and_one_sentence(serve, values, status, sentence):
    client = serve(max_texts=5, max_characters=10_000, max_body_bytes=50_000)
    answer = post(client, values)
    if status is None:
        assert answer.status_code == 200
        return
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]


def test_a_body_without_a_length_is_cut_at_the_limit(serve):
    client = serve(max_body_bytes=1000)
    read = []

    def chunks():
        for number in range(1000):
            read.append(number)
            yield b"a" * 100

    answer = client.post("/v1/classify", content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_page_of_a_stranger_can_not_write_verdicts(serve):
    client = serve()
    body = json.dumps({"input": "a", "label": True})
    sent = client.post("/v1/verdicts", content=body, headers={"Content-Type": "text/plain"})  # needs no preflight
    assert sent.status_code == 415
    preflight = client.options("/v1/verdicts", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in preflight.headers
    rebound = client.get("/v1/queue", headers={"Host": "evil.example:8000"})
    assert rebound.status_code == 421
    assert not client.server.settings.verdicts.exists()


def test_names_that_were_given_are_answered(serve):
    client = serve(names=("fraud.example",))
    assert client.get("/v1/model", headers={"Host": "Fraud.Example:443"}).status_code == 200
    assert client.get("/v1/model", headers={"Host": "other.example"}).status_code == 421
    assert client.get("/readyz", headers={"Host": "10.0.0.1"}).status_code == 200  # a probe


def test_without_the_token_only_what_holds_no_text_is_open(serve):
    client = serve(token=TOKEN)
    paths = [route.path for route in client.app.app.routes if hasattr(route, "path")]
    assert len(paths) > 10
    for path in [*paths, "/static/page.js", "/static/..%2fv1/queue"]:
        if path == "/static":
            continue
        expected = path in OPEN_PATHS or path.startswith("/static/")
        assert (client.get(path).status_code != 401) == expected, path
    for header in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ", "Bearer \u00e4"):
        headers = {"Authorization": header.encode("latin-1")}
        answer = client.post("/v1/classify", json={"input": "a"}, headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), header
    good = client.post("/v1/classify", json={"input": "a"}, headers={"Authorization": f"bearer {TOKEN}"})
    assert good.status_code == 200


def test_a_client_that_asks_too_much_has_to_wait_and_others_need_not(serve):
    client = serve(client_rate=1)  # ten texts at once
    assert post(client, {"input": ["a"] * 9}).status_code == 200
    refused = post(client, {"input": ["a"] * 9})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 9
    other = serve(client_rate=1, client=("127.0.0.2", 1))
    other.server.rates = client.server.rates
    assert post(other, {"input": ["a"] * 9}).status_code == 200


class Slow(Classifier):
    """Scores when it may."""

    threshold = 0.5

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()

    def score(self, texts):
        self.gate.wait(30)
        return Scores(np.zeros(len(texts)), np.zeros(len(texts), dtype=bool))


def test_a_request_that_waits_too_long_is_told_to_come_back(serve):
    slow = Slow()
    client = serve(load=lambda: slow, timeout=0.1)
    slow.gate.clear()
    answer = post(client, {"input": "a"})
    assert answer.status_code == 503
    assert "not scored within 0.1 s" in answer.json()["error"]
    assert int(answer.headers["Retry-After"]) >= 1
    slow.gate.set()


def state_of(client) -> list:
    found = [client.get(path).status_code for path in ("/healthz", "/readyz")]
    return [*found, post(client, {"input": "a"}).status_code, client.get("/v1/model").json()["ready"]]


def test_until_the_model_is_loaded_the_server_lives_but_is_not_ready(serve, classifier):
    gate = threading.Event()
    client = serve(load=lambda: gate.wait(30) and classifier, wait=False)
    assert state_of(client) == [200, 503, 503, False]
    gate.set()
    while not client.server.worker.is_ready:
        time.sleep(0.001)
    assert state_of(client) == [200, 200, 200, True]


def test_without_a_model_the_server_is_not_alive(serve):
    def load():
        raise UserError("no model")

    assert state_of(serve(load=load)) == [503, 503, 503, False]


def test_no_verdict_is_given_that_the_log_can_not_hold(serve, monkeypatch):
    client = serve()

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stages.serve.audit.append", full)
    answer = post(client, {"input": "a"})
    assert answer.status_code == 503
    assert "No space left on device" in answer.json()["error"]


def test_the_log_has_a_line_for_each_verdict(serve, classifier):
    client = serve(audit="hash")
    answer = post(client, {"input": TEXTS[:2], "threshold": 0.7})
    file = client.server.settings.audit_folder / "audit.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["probability"] for line in lines] == [each["probability"] for each in answer.json()["results"]]
    assert {line["id"] for line in lines} == {answer.json()["id"]} == {answer.headers["X-Request-Id"]}
    assert {line["model"] for line in lines} == {answer.json()["model"]}
    assert all(line["threshold"] == 0.7 and re.fullmatch(r"[0-9a-f]{64}", line["sha256"]) for line in lines)
    assert TEXTS[0] not in file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o077 == 0


def test_metrics_count_requests_texts_and_batches(serve):
    client = serve()
    post(client, {"input": TEXTS})
    post(client, {"input": ""})
    client.get("/no/such/path")
    families = {f.name: f for f in text_string_to_metric_families(client.get("/metrics").text)}
    requests = {(s.labels["path"], s.labels["status"]): s.value for s in families["serve_requests"].samples}
    assert requests[("/v1/classify", "200")] == requests[("/v1/classify", "422")] == requests[("other", "404")] == 1
    assert sum(sample.value for sample in families["serve_texts"].samples) == len(TEXTS)
    counts = {sample.name: sample.value for sample in families["serve_batch_texts"].samples}
    assert counts["serve_batch_texts_sum"] == len(TEXTS)
    assert families["serve_ready"].samples[0].value == 1


def test_the_document_of_the_api_names_what_the_routes_take(serve):
    client = serve()
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    for reference in re.findall(r"#/components/schemas/(\w+)", text):
        assert reference in document["components"]["schemas"]
    body = document["components"]["schemas"]["ClassifyRequest"]
    assert set(body["properties"]) == {"input", "threshold", "explain"}
    answer = document["components"]["schemas"]["ClassifyAnswer"]
    assert set(answer["properties"]) == set(post(client, {"input": "a"}).json())


def test_pages_come_from_here_alone(serve):
    client = serve()
    for path in ("/", "/docs"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        links = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
        assert links
        for link in links:
            assert link.startswith(("/", "#")), link
            assert link.startswith("#") or client.get(link).status_code == 200, link


def test_a_crash_is_a_sentence_and_not_a_stack(serve, monkeypatch):
    client = serve()
    monkeypatch.setattr("stages.serve.app.answer_of", lambda *_: 1 / 0)
    answer = post(client, {"input": "a"})
    assert answer.status_code == 500
    assert answer.headers["X-Request-Id"] in answer.json()["error"]
    assert "ZeroDivision" not in answer.text
