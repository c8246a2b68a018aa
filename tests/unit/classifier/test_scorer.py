"""Each system: predict gives a text the score that evaluate gives it, and needs no more than the system does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import params
from stages.artifacts import read_csv, read_json, write_json
from stages.classifier import scorer as scorer_module
from stages.classifier import shift as shift_module
from stages.classifier.scorer import load_scorer
from stages.classifier.systems import PARTS
from stages.errors import UserError
from stages.evaluate.__main__ import main as evaluate
from stages.predict.classify import classify
from stages.predict.output import open_output
from stages.predict.source import Source
from stages.select.__main__ import main as select
from stages.text.example import read_examples
from tests.conftest import ROOT
from tests.unit.classifier.conftest import write_params


@pytest.fixture(scope="module")
def evaluated(project, tmp_path_factory) -> Path:
    """A copy in which all systems were evaluated, with the model selected."""
    folder = Path(shutil.copytree(project, tmp_path_factory.mktemp("evaluated") / "project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        select()
        evaluate()
    return folder


def select_system(folder: Path, system: str) -> dict:
    raw = params.read_yaml(folder / "params.yaml")
    raw["select"]["system"] = system
    write_params(folder, raw)
    select()
    return read_json(folder / "models/selected/selected.json")


@pytest.mark.parametrize("system", PARTS)
def test_predict_gives_the_scores_of_evaluate_to_the_last_digit(evaluated, monkeypatch, system):
    monkeypatch.chdir(evaluated)
    record = select_system(evaluated, system)
    assert record["system"] == system
    for name, file in (("test", "data/processed/test.jsonl"), ("sms", "data/processed/further/sms.jsonl")):
        out = open_output(evaluated / "classified.jsonl")
        classify(Source(evaluated / file), out, None, None)
        out.close()
        found = [json.loads(line) for line in (evaluated / "classified.jsonl").read_text("utf-8").splitlines()]
        rows = read_csv(evaluated / f"data/predictions/{name}.csv")
        assert [row["probability"] for row in found] == [float(row[f"{system}_score"]) for row in rows]
        assert [int(row["label"]) for row in found] == [int(row[f"{system}_pred"]) for row in rows]


def test_evaluate_reports_the_same_whichever_system_is_selected(evaluated, monkeypatch):
    monkeypatch.chdir(evaluated)
    before = read_json(evaluated / "metrics/evaluate.json")
    record = select_system(evaluated, "combined")
    evaluate()
    after = read_json(evaluated / "metrics/evaluate.json")
    for block in (before, after):
        for system in ("model", "zero_shot", "probe"):
            for name in [name for name in block[system] if name.startswith("samples_per_second")]:
                del block[system][name]
    for block in [*PARTS, "zero_shot", "ahead", "difference", "best_cheap", "size", "further"]:
        if block != "further":
            assert before[block] == after[block]
    assert after["promised"] == record["promised"] != before["promised"]
    assert after["kept"]["test"]["recall"] == pytest.approx(after["combined"]["recall"])


def test_the_report_has_each_system_and_its_difference_to_the_best_cheap_one(evaluated):
    report = read_json(evaluated / "metrics/evaluate.json")
    best = report["best_cheap"]["name"]
    assert best in ("baseline", "probe", "combined_cheap")
    assert report["ahead"].keys() == {*PARTS, "zero_shot"} - {best}
    for system, ahead in report["ahead"].items():
        difference = report[system]["average_precision"] - report[best]["average_precision"]
        assert ahead["average_precision"] == pytest.approx(difference)
        assert ahead["average_precision_low"] <= ahead["average_precision_high"]


def test_further_sets_are_compared_with_valid_and_test_is_not(evaluated, monkeypatch, capsys):
    monkeypatch.chdir(evaluated)
    before = read_json(evaluated / "metrics/evaluate.json")
    assert before["further"]["sms"]["shift"].keys() == {"flagged", "flagged_on_valid"}  # 30 texts are too few
    monkeypatch.setattr(shift_module, "FEWEST_ROWS", 30)
    record = select_system(evaluated, "combined_cheap")
    capsys.readouterr()
    evaluate()
    report, said = read_json(evaluated / "metrics/evaluate.json"), capsys.readouterr().out
    assert "shift" not in report
    shift, system = report["further"]["sms"].pop("shift"), report["further"]["sms"]["combined_cheap"]
    assert shift.keys() == {"length", "vocabulary", "script", "score", "flagged", "flagged_on_valid"}
    assert shift["flagged"] == pytest.approx((system["tp"] + system["fp"]) / 30)
    valid = record["valid"]
    assert shift["flagged_on_valid"] == pytest.approx((valid["tp"] + valid["fp"]) / len(read_valid()))
    assert shift["length"]["shifted"]  # they are cut at 40 characters
    assert "evaluate: WARNING: sms: these texts differ from valid" in said
    assert "WARNING: test" not in said
    Path("models/selected/reference.json").unlink()  # a model of an earlier version
    evaluate()
    assert "shift" not in read_json(evaluated / "metrics/evaluate.json")["further"]["sms"]


def read_valid() -> list:
    return read_examples(Path("data/processed/valid.jsonl"))


@pytest.mark.parametrize("system", ["baseline", "probe", "combined_cheap"])
def test_a_system_without_the_model_needs_no_adapter(evaluated, tmp_path, monkeypatch, system):
    """And the baseline no base model: its folder is enough."""
    monkeypatch.chdir(evaluated)
    select_system(evaluated, system)
    selected = Path(shutil.copytree("models/selected", tmp_path / "selected"))
    for file in selected.glob("adapter_*"):
        file.unlink()
    base = tmp_path / "none" if system == "baseline" else Path("models/base")
    alone = load_scorer(selected, base).score(["请把钱转到这个账户", "短"]).log_odds
    assert np.isfinite(alone).all()
    assert alone[0] != alone[1]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, or none")
@pytest.mark.parametrize("system", ["baseline", "combined"])
def test_two_processes_classify_by_a_system_with_the_baseline(evaluated, monkeypatch, system):
    monkeypatch.chdir(evaluated)
    select_system(evaluated, system)
    shutil.copyfile(ROOT / "accelerate.yaml", "accelerate.yaml")
    found = []
    for number in ("1", "2"):
        out = Path(f"by_{number}.jsonl")
        done = subprocess.run(
            [sys.executable, "-m", "stages.predict", "--file", "data/processed/test.jsonl", "--out", str(out)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "NPROC": number},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr.decode()
        found.append([json.loads(line)["probability"] for line in out.read_text("utf-8").splitlines()])
    assert found[1] == pytest.approx(found[0], abs=1e-6)


def test_a_batch_of_other_texts_changes_no_score_of_the_baseline(evaluated, monkeypatch):
    monkeypatch.chdir(evaluated)
    select_system(evaluated, "baseline")
    scorer = load_scorer()
    texts = [example.input for example in read_examples(Path("data/processed/test.jsonl"))]
    whole = scorer.score(texts).log_odds
    assert whole.tolist() == [scorer.score([text]).log_odds[0] for text in texts]
    assert not scorer.score([]).log_odds.size


def test_a_folder_that_changes_while_it_is_loaded_is_refused(evaluated, tmp_path, monkeypatch):
    """As where `dvc repro` replaces models/selected: weights of one run and the calibration of another."""
    monkeypatch.chdir(evaluated)
    select_system(evaluated, "model")
    selected = Path(shutil.copytree("models/selected", tmp_path / "selected"))
    load = scorer_module.load_model_part

    def slow(*arguments, **options):
        write_json(selected / "selected.json", read_json(selected / "selected.json") | {"temperature": 9.0})
        return load(*arguments, **options)

    monkeypatch.setattr(scorer_module, "load_model_part", slow)
    with pytest.raises(UserError, match="has changed while it was loaded: wait until `dvc repro` has ended"):
        load_scorer(selected)


def test_best_is_the_system_with_the_highest_average_precision_on_valid(evaluated, monkeypatch):
    monkeypatch.chdir(evaluated)
    record = select_system(evaluated, "best")
    found = read_json(evaluated / "metrics/select.json")["average_precision"]
    assert found.keys() == PARTS.keys()
    assert found[record["system"]] == max(found.values())
    assert record["valid"]["average_precision"] == max(found.values())


def test_files_of_the_probe_with_a_pickle_or_of_another_base_are_refused(evaluated, monkeypatch):
    monkeypatch.chdir(evaluated)
    select_system(evaluated, "combined_cheap")
    file = Path("models/selected/probe/probe.safetensors")
    kept = file.read_bytes()
    np.save(file.with_suffix(".npy"), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    file.with_suffix(".npy").rename(file)
    with pytest.raises(UserError, match="probe.safetensors can't be read: SafetensorError.*run `dvc repro`"):
        load_scorer()
    file.write_bytes(kept)
    monkeypatch.setattr(scorer_module, "width", lambda model: 7)
    with pytest.raises(UserError, match=r"weights of shape \(64,\); expected \(7,\)"):
        load_scorer()
