"""The exported classifier in plain transformers, without this project."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import expit, logit

from stages import api
from stages.artifacts import read_json
from stages.classifier.scorer import load_scorer
from stages.errors import UserError
from stages.export.classifier import HEAD
from stages.export.load import load_export
from stages.export.parity import HOSTILE
from stages.text.example import read_examples

# Five lines of plain transformers, in a process that can't import this project.
PLAIN = """
import importlib.util, json, sys
assert importlib.util.find_spec("stages") is None
folder, texts = sys.argv[1], json.load(open(sys.argv[2]))

from transformers import pipeline
classify = pipeline("text-classification", folder, top_k=None)
scores = [{each["label"]: each["score"] for each in found} for found in classify(texts, truncation=True)]
batched = [{each["label"]: each["score"] for each in found} for found in classify(texts, truncation=True, batch_size=8)]
json.dump([scores, batched], open(sys.argv[3], "w"))
"""


def test_plain_transformers_gives_the_probability_of_predict(classifier_folder, project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    texts = [*HOSTILE, *(row.input for row in read_examples(project / "data/processed/test.jsonl")[:10])]
    file, out = tmp_path / "texts.json", tmp_path / "scores.json"
    file.write_text(json.dumps(texts), encoding="utf-8")
    command = [sys.executable, "-I", "-c", PLAIN, str(classifier_folder), str(file), str(out)]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    scorer = load_scorer()
    log_odds = scorer.selected.calibration.log_odds(scorer.score(texts).log_odds)
    offset = scorer.selected.offset
    assert offset != 0
    for found in json.loads(out.read_text()):
        assert found[0].keys() == {"legitimate", "fraud"}
        plain = np.array([each["fraud"] for each in found])
        np.testing.assert_allclose(plain, expit(log_odds - offset), atol=1e-5)
        threshold = read_json(classifier_folder / "export.json")["threshold"]
        assert ((plain >= threshold) == (expit(log_odds) >= scorer.selected.threshold)).all()


def test_the_record_says_what_a_loader_needs(classifier_folder, project):
    record = read_json(classifier_folder / "export.json")
    assert (record["kind"], record["weights"], record["labels"]) == ("classifier", "float32", ["legitimate", "fraud"])
    assert logit(record["threshold"]) == pytest.approx(logit(record["probability_threshold"]) - record["offset"])
    assert record["speakers_removed"] is True
    assert record["auto_tokenizer"] is True
    assert record["base"]["sha256"] == read_json(project / "models/base/base.json")["sha256"]


def test_the_second_logit_is_the_log_odds(classifier_folder):
    head = load_file(classifier_folder / "model.safetensors")[HEAD]
    assert head.shape == (2, 64)
    assert not head[0].any()


def test_no_file_names_this_machine(classifier_folder, project):
    for file in classifier_folder.iterdir():
        assert str(project).encode() not in file.read_bytes(), file.name


def test_the_api_scores_an_export_as_predict_does(classifier_folder, project, monkeypatch):
    monkeypatch.chdir(project)
    trained, exported = api.load(), api.load(classifier_folder)
    texts = list(HOSTILE)
    assert exported.threshold == trained.threshold
    one, other = exported.score(texts), trained.score(texts)
    np.testing.assert_allclose(one.log_odds, other.log_odds, atol=1e-5)
    assert one.truncated.tolist() == other.truncated.tolist()
    assert one.truncated.any()
    assert (exported.predict(texts) == trained.predict(texts)).all()
    np.testing.assert_allclose(exported.predict_proba(texts).sum(axis=1), 1)
    assert load_export(classifier_folder).score([]).log_odds.shape == (0,)


def test_the_card_has_loading_threshold_and_licence(classifier_folder):
    card = (classifier_folder / "README.md").read_text(encoding="utf-8")
    record = read_json(classifier_folder / "export.json")
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-classification\n")
    assert 'pipeline("text-classification", FOLDER, top_k=None)' in card
    assert f"from a probability of {record['threshold']:.6g} on" in card
    assert "licence: unknown" in card
    assert "metrics/ holds no figures of this model" in card


def test_a_missing_package_of_a_kind_is_named(classifier_folder, monkeypatch):
    def load(folder, base):
        raise ImportError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr("stages.export.score.load", load)
    with pytest.raises(UserError, match="needs onnxruntime: pip install -r requirements-export.txt"):
        load_export(classifier_folder)
    with pytest.raises(UserError, match="holds no export.json"):
        load_export(classifier_folder.parent)
