"""The queue, the file of verdicts, and that prepare reads it: a judged text is trained on, in the split of its unit."""

import json
import random

import numpy as np
import pytest
import yaml
from sklearn.metrics import confusion_matrix

from stages import params
from stages.artifacts import read_json
from stages.prepare.leaks import find_leaks
from stages.prepare.read import limit_rejected, together
from stages.prepare.sources import read_sources, texts_as_trained
from stages.prepare.split import split_sources
from stages.serve.fingerprint import fingerprint
from stages.serve.operating import MOST_POINTS, curve, operating_points
from stages.serve.review import Verdicts, Waiting, choose, log_odds, read_waiting
from tests.conftest import ROOT

TEXT = "我是公安局的，请把钱转到安全账户。"


@pytest.fixture
def verdicts(tmp_path) -> Verdicts:
    return Verdicts(tmp_path / "data/raw/reviewed.jsonl", tmp_path / "lock")


def rows_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_last_verdict_on_a_text_stands_alone_and_can_be_taken_back(verdicts):
    assert verdicts.add(TEXT, True, "new.jsonl:3", "case 7", 0.4) == 1
    assert verdicts.add("其他", False, "new.jsonl:4") == 2
    assert verdicts.add(f" {TEXT}\r\n", False, "new.jsonl:9", "case 7") == 2
    rows = rows_of(verdicts.path)
    assert [(row["input"].strip(), row["label"]) for row in rows] == [("其他", False), (TEXT, False)]
    assert rows[0].keys() >= {"input", "label", "source", "time", "group"}
    assert verdicts.remove(TEXT)
    assert not verdicts.remove(TEXT)
    assert list(verdicts.labels().values()) == [False]


def test_lines_of_others_in_the_file_stay(verdicts):
    verdicts.path.parent.mkdir(parents=True)
    verdicts.path.write_text('{"input": "a", "label": "1"}\nno json\n{"input": "b",   "label": true}', encoding="utf-8")
    verdicts.add(TEXT, True, "api")
    verdicts.add(TEXT, False, "api")
    lines = verdicts.path.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ['{"input": "a", "label": "1"}', "no json", '{"input": "b",   "label": true}']
    assert len(lines) == 4


def test_the_queue_has_each_text_once_nearest_to_the_threshold_first(tmp_path):
    rng = random.Random(0)
    rows = [Waiting(f"text {rng.randrange(60)}", rng.random(), f"a:{n}") for n in range(200)]
    judged = {"text 1", "text 2"}
    found = choose(rows, map(fingerprint, judged), 0.2, 0.9, "informative", 0.3)
    newest = {}
    for row in rows:
        if 0.2 <= row.probability <= 0.9 and row.input not in judged:
            newest[row.input] = row
    assert {row.input: row for row in found} == newest
    distances = [abs(log_odds(row.probability) - log_odds(0.3)) for row in found]
    assert distances == sorted(distances)
    recent = choose(rows, [], 0, 1, "newest", 0.3)
    numbers = [int(row.source.partition(":")[2]) for row in recent]
    assert numbers == sorted(numbers, reverse=True)


def test_a_text_keeps_its_case_where_the_audit_log_knows_of_none(verdicts):
    rows = [Waiting(TEXT, 0.4, "new.jsonl:3", "case 7"), Waiting(f"{TEXT}\n", 0.4, "audit.jsonl:1")]
    (found,) = choose(rows, [], 0, 1, "newest", 0.5)
    assert (found.source, found.group) == ("audit.jsonl:1", "case 7")
    verdicts.add(TEXT, True, "new.jsonl:3", "case 7")
    verdicts.add(TEXT, False, "audit.jsonl:1")
    assert [row["group"] for row in rows_of(verdicts.path)] == ["case 7"]
    verdicts.add(TEXT, False, "api", "case 8")
    assert [row["group"] for row in rows_of(verdicts.path)] == ["case 8"]


def test_files_of_predict_are_read_and_rows_without_a_text_are_left_out(tmp_path):
    file = tmp_path / "classified.jsonl"
    rows = [{"input": "a", "probability": 0.5, "group": 3}, {"input": " ", "probability": 0.5}, {"input": "b"}, [],
            {"input": "c", "probability": 2}, {"input": "d", "probability": 1}]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)) + "\nno json\n")
    found = read_waiting([file, tmp_path / "missing.jsonl"])
    assert [(row.input, row.probability, row.source, row.group) for row in found] == [
        ("a", 0.5, "classified.jsonl:1", "3"),
        ("d", 1.0, "classified.jsonl:6", ""),
    ]


def test_the_routes_of_the_queue(serve, tmp_path):
    file = tmp_path / "classified.jsonl"
    file.write_text(json.dumps({"input": "from predict", "probability": 0.41}) + "\n")
    client = serve(audit="text", queues=(file,))
    client.post("/v1/classify", json={"input": [TEXT, "您好，您的快递到了。"]})
    queue = client.get("/v1/queue").json()
    assert queue["waiting"] == 3
    assert queue["texts"][0]["input"] == "from predict"  # the threshold is 0.4
    first = {key: queue["texts"][1][key] for key in ("input", "source", "group", "probability")}
    assert client.post("/v1/verdicts", json=first | {"label": True}).json() == {"verdicts": 1}
    assert client.get("/v1/queue").json()["waiting"] == 2
    known = client.post("/v1/verdicts/known", json={"input": [first["input"], "other"]}).json()
    assert known == {"labels": [True, None]}
    assert client.request("DELETE", "/v1/verdicts", json={"input": first["input"]}).json() == {"verdicts": 0}
    assert client.request("DELETE", "/v1/verdicts", json={"input": first["input"]}).status_code == 404
    assert client.get("/v1/queue?low=0.405&high=0.415").json()["waiting"] == 1
    assert client.post("/v1/verdicts", json={"input": "a", "label": True, "group": "1.3E+10"}).status_code == 422


def test_without_review_there_are_no_routes_for_it(serve):
    client = serve(verdicts=None)
    assert client.get("/v1/queue").status_code == 404
    assert client.post("/v1/verdicts", json={"input": "a", "label": True}).status_code == 404
    assert client.get("/v1/model").json()["review"] is False


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A project whose data set `mine` is a pool of 240 rows, and a function that splits it as prepare does."""
    (tmp_path / "data/raw").mkdir(parents=True)
    lines = (ROOT / "data/sample/pool.jsonl").read_text(encoding="utf-8").splitlines()[:240]
    (tmp_path / "data/raw/a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    raw = params.read_yaml(ROOT / "params.yaml")
    raw["dataset"] = "mine"
    raw["evaluate"]["further_sets"] = {}

    def prepared(*files: str):
        raw["datasets"]["mine"] = {"pool": list(files)}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        chosen = params.load()
        own, _ = read_sources(chosen)
        rows = together(own.values())
        limit_rejected(rows, 0.0)
        splits, _ = split_sources(texts_as_trained(own, chosen.removes_speakers), chosen)
        return find_leaks(splits, chosen.prepare)[0], rows

    return tmp_path, prepared


def test_judged_texts_are_read_by_prepare_in_the_split_of_their_units_and_trained_on(pool, serve):
    folder, prepared = pool
    before, _ = prepared("data/raw/a.jsonl")
    grouped = next(example for example in before["train"] if example.group)
    alone = next(e for e in reversed(before["train"]) if len(e.input) > 60 and e.group != grouped.group)
    of_case, similar, new = "另一条消息：请点击链接。", alone.input[:-1] + "？", "全新的文本，今天天气很好。"
    client = serve(verdicts=folder / "data/raw/reviewed.jsonl")
    for text, label, group in [(of_case, True, grouped.group), (similar, False, ""), (new, False, "")]:
        body = {"input": text, "label": label, "group": group, "source": "new.jsonl:1", "probability": 0.5}
        assert client.post("/v1/verdicts", json=body).status_code == 200
    after, rows = prepared("data/raw/a.jsonl", "data/raw/reviewed.jsonl")
    where = {example.input: (name, example) for name, examples in after.items() for example in examples}
    for text, other, label in [(of_case, grouped, True), (similar, alone, False)]:
        (split, judged), (other_split, known) = where[text], where[other.input]
        assert judged.source.startswith("reviewed.jsonl:")
        assert (split, judged.unit, judged.label) == (other_split, known.unit, label)
    assert where[new][1].group.startswith("review-")
    assert not rows.doubts  # each row has a group
    assert any(example.source.startswith("reviewed.jsonl:") for example in after["train"])


@pytest.mark.parametrize("rows", [60, 3000])
def test_figures_by_threshold_are_those_of_scikit_learn(rows):
    rng = np.random.default_rng(0)
    labels = rng.random(rows) < 0.3
    probability = np.round(np.clip(rng.normal(0.3 + 0.3 * labels, 0.2), 0, 1), 3)
    found = curve(labels, probability, 0.3)
    assert len(found["threshold"]) <= MOST_POINTS
    assert found["threshold"][-1] == probability.max()
    for threshold, recall, alarms in zip(
        *(found[key][::7] for key in ("threshold", "recall", "false_alarm_rate")), strict=True
    ):
        tn, fp, fn, tp = confusion_matrix(labels, probability >= threshold).ravel()
        assert recall == pytest.approx(tp / (tp + fn))
        assert alarms == pytest.approx(fp / (fp + tn))


def test_figures_are_refused_if_valid_is_not_the_one_of_the_threshold(served, monkeypatch, tmp_path):
    monkeypatch.chdir(served)
    found = operating_points(served / "models/selected")
    assert (found["fraud"] + found["harmless"], found["fraud_fraction"]) == (100, 0.5)
    selected = read_json(served / "models/selected/selected.json")
    at = next(n for n, value in enumerate(found["threshold"]) if value >= selected["threshold"])
    assert found["recall"][at] == pytest.approx(selected["valid"]["recall"])
    for change in (lambda lines: lines[:-1], lambda lines: lines[1:] + lines[:1]):
        lines = (served / "data/processed/valid.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / "data/processed/baseline").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/processed/valid.jsonl").write_text("".join(change(lines)), encoding="utf-8")
        scores = (served / "data/processed/baseline/valid.csv").read_bytes()
        (tmp_path / "data/processed/baseline/valid.csv").write_bytes(scores)
        monkeypatch.chdir(tmp_path)
        assert "missing" in operating_points(served / "models/selected")
