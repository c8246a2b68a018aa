"""Each kind scores as predict does, or says what it costs; what can't be exported is refused in one sentence."""

import dataclasses
import json
import shutil
from pathlib import Path

import bitsandbytes as bnb
import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertGenerationConfig, Gemma2Config, GPTNeoXConfig, Qwen2Config

from stages.artifacts import read_json
from stages.classifier.trained import read_selected
from stages.errors import UserError
from stages.export import __main__ as command
from stages.export.classifier import HEAD, classifier_config
from stages.export.load import load_export
from stages.export.merge import read_source, require_expressible
from stages.export.parity import EXACT, HOSTILE, score_export
from stages.export.score import without_repacking
from stages.serve.operating import FIGURES_FILE, operating_points
from stages.text.example import read_examples, write_examples


def test_scoring_an_export_does_not_repack_4_bit_weights():
    """As stages/model/patches.py does; on CPUs with AVX512-bf16 the parity of adapters fails otherwise."""
    model = nn.Sequential(bnb.nn.Linear4bit(64, 64), nn.Linear(64, 64))
    model[0].support_avx512bf16_for_cpu = True
    assert not without_repacking(model)[0].support_avx512bf16_for_cpu
    assert not hasattr(model[1], "support_avx512bf16_for_cpu")


@pytest.mark.parametrize("arguments", [("merged", "--dtype", "float32"), ("adapter",)], ids=["merged", "adapter"])
def test_lossless_kinds_score_as_predict_does(export, arguments):
    folder = export(*arguments)
    figures = read_json(folder / "parity.json")
    assert figures["valid"]["log_odds_largest_difference"] < EXACT
    assert figures["valid"]["hostile_largest_difference"] < EXACT
    assert figures["valid"]["decisions_changed"] == 0
    assert figures["bytes"] >= sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert not list(folder.parent.glob(".writing*"))


def test_rounded_weights_are_compared_by_their_mean(export, project):
    folder = export("classifier", "--dtype", "bfloat16", "--rows", "12")
    figures = read_json(folder / "parity.json")
    assert figures["valid"]["rows"] == 12
    assert EXACT < figures["valid"]["log_odds_mean_difference"] < 0.03
    points, chosen_on = operating_points(folder), read_selected(project / "models/selected").valid
    assert points["fraud"] == chosen_on["tp"] + chosen_on["fn"] > 12


def test_a_lossy_kind_gets_its_own_operating_point_in_its_weights(export, project):
    folder = export("classifier", "--dtype", "nf4")
    record, figures = read_json(folder / "export.json"), read_json(folder / "parity.json")
    again = figures["recalibrated"]
    assert record["slope"] == 1.0
    assert record["offset"] == again["offset"] != read_selected(project / "models/selected").offset
    assert record["probability_threshold"] == again["threshold"]
    test = figures["test"]
    assert test["size"]["rows"] == 40
    for system in ("original", "export"):
        assert test[system]["recall_low"] <= test[system]["recall"] <= test[system]["recall_high"]
    # The folder as it lies there gives the scores that the figures are of: the slope is in the head.
    texts = [json.loads(line)["input"] for line in (project / "data/processed/valid.jsonl").open(encoding="utf-8")]
    scored = score_export(folder, texts, project / "models/base")
    assert int(scored.label.sum()) == int((1 / (1 + np.exp(-scored.log_odds)) >= again["threshold"]).sum())
    plain = load_export(folder).predict(texts)
    assert (plain == scored.label).all()
    require_figures_at_threshold(folder, read_examples(project / "data/processed/valid.jsonl"))


def test_an_export_brings_the_figures_of_the_servers_slider(classifier_folder, project, monkeypatch, tmp_path):
    folder = Path(shutil.copytree(classifier_folder, tmp_path / "export"))
    valid = read_examples(project / "data/processed/valid.jsonl")
    monkeypatch.chdir(tmp_path)  # without models/selected and data/processed
    require_figures_at_threshold(folder, valid)
    (folder / FIGURES_FILE).unlink()
    assert "export it again" in operating_points(folder)["missing"]


def require_figures_at_threshold(folder, valid):
    """The slider's figures at the export's threshold are those of its labels."""
    points, classifier = operating_points(folder), load_export(folder)
    fraud = np.array([row.label for row in valid])
    assert (points["fraud"], points["harmless"], points["fraud_fraction"]) == (fraud.sum(), (~fraud).sum(), 0.5)
    called = classifier.predict([row.input for row in valid])
    at = np.searchsorted(points["threshold"], classifier.threshold - 1e-6)
    assert points["recall"][at] == pytest.approx(called[fraud].mean())
    assert points["false_alarm_rate"][at] == pytest.approx(called[~fraud].mean())


def test_a_lossy_export_that_orders_texts_otherwise_is_not_written(export, project, monkeypatch):
    def damaged(folder, source, dtype):
        record = command.write_classifier(folder, source, dtype)
        weights = load_file(folder / "model.safetensors")
        weights[HEAD] = -weights[HEAD]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return record

    monkeypatch.setitem(command.KINDS, "classifier", command.Kind(damaged, ("nf4",)))
    with pytest.raises(UserError, match=r"orders texts otherwise than predict: rank correlation -.*at least 0.9"):
        export("classifier", "--dtype", "nf4", out="reversed")
    assert not (project / "exports/reversed").exists()


def test_an_export_beyond_its_tolerance_is_not_written(export, project, monkeypatch):
    kept = export("classifier", out="kept")
    before = {file.name: file.read_bytes() for file in kept.iterdir()}

    def damaged(folder, source, dtype):
        record = command.write_classifier(folder, source, dtype)
        weights = load_file(folder / "model.safetensors")
        weights[HEAD] = weights[HEAD] * 1.01
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return record

    monkeypatch.setitem(command.KINDS, "classifier", command.Kind(damaged, ("float32",)))
    with pytest.raises(UserError, match=r"the largest difference of log-odds is .*expected at most 0.0001"):
        export("classifier", out="kept")
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == before
    with pytest.raises(UserError, match="does not score as predict does"):
        export("classifier", out="fresh")
    assert not (project / "exports/fresh").exists()


def test_rows_of_another_split_are_not_taken_for_the_models_valid_and_test(export, project):
    file = project / "data/processed/valid.jsonl"
    rows = file.read_text()
    try:
        write_examples(file, [dataclasses.replace(row, label=not row.label) for row in read_examples(file)])
        with pytest.raises(UserError, match="valid.jsonl is not the valid that the threshold was chosen on: dvc repro"):
            export("classifier", out="fresh")
    finally:
        file.write_text(rows)
    lock = project / "dvc.lock"
    for stage, name in (("select", "valid"), ("report", "test")):
        dep = {"path": f"data/processed/{name}.jsonl", "hash": "md5", "md5": "0" * 32}
        lock.write_text(json.dumps({"stages": {stage: {"deps": [dep]}}}))
        with pytest.raises(UserError, match=f"{name}.jsonl is not the one that stage {stage} read, by dvc.lock"):
            export("classifier", out="fresh")
    lock.unlink()
    assert not (project / "exports/fresh").exists()


@pytest.mark.parametrize("content", ["file", "folder"])
def test_what_is_no_export_is_never_replaced(export, project, content):
    out = project / "exports/mine"
    if content == "folder":
        out.mkdir(parents=True)
        (out / "thesis.txt").write_text("x")
    else:
        out.parent.mkdir(exist_ok=True)
        out.write_text("x")
    with pytest.raises(UserError, match="exists and is no export"):
        export("adapter", out="mine")
    assert out.exists()
    shutil.rmtree(out) if out.is_dir() else out.unlink()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": "combined"}, "select.system combined; expected model"),
        ({"prompt": {"repetitions": 2}}, "prompt.repetitions 2; expected 1"),
        ({"prompt": {"truncation_side": "middle"}}, "truncation_side middle; expected right or left"),
    ],
)
def test_what_no_export_can_express_is_refused(project, changes, message):
    selected = dataclasses.replace(read_selected(project / "models/selected"), **changes)
    with pytest.raises(UserError, match=message):
        require_expressible(selected)


def test_a_base_without_an_equal_classifier_is_refused(project):
    source = read_source(project / "models/selected", project / "models/base")
    with pytest.raises(UserError, match="gemma2 soft-caps its logits at 30.0"):
        classifier_config(Gemma2Config(), source)
    with pytest.raises(UserError, match="no sequence classifier for bert-generation"):
        classifier_config(BertGenerationConfig(), source)
    for config in (Qwen2Config(), GPTNeoXConfig()):
        made = classifier_config(config, source)
        assert made.pad_token_id == source.prompt.tokenizer.pad_token_id
        assert made.id2label == {0: "legitimate", 1: "fraud"}


def test_gguf_without_its_converter_says_where_to_get_it(export, monkeypatch, tmp_path):
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    with pytest.raises(UserError, match="convert_hf_to_gguf.py is missing"):
        export("gguf")


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_onnx_scores_as_predict_does(export, project, dtype):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    folder = export("onnx", "--dtype", dtype)
    figures = read_json(folder / "parity.json")
    if dtype == "float32":
        assert figures["valid"]["log_odds_largest_difference"] < EXACT
        assert figures["valid"]["hostile_largest_difference"] < EXACT
    else:
        assert figures["recalibrated"]["rank_correlation"] > 0.99
        assert figures["bytes"] < read_json(export("onnx", "--dtype", "float32") / "parity.json")["bytes"]
    found = load_export(folder, Path("nowhere")).score(list(HOSTILE))
    scored = score_export(folder, list(HOSTILE), Path("nowhere"))
    np.testing.assert_allclose(found.log_odds, scored.log_odds, atol=1e-5)


def test_all_may_read_the_files_of_an_export(export):
    assert {file.stat().st_mode & 0o777 for file in export("merged").rglob("*") if file.is_file()} == {0o644}
