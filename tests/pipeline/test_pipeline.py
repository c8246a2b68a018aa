"""The nine real stages under a real `dvc repro`, on a tiny model."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from sklearn.metrics import average_precision_score

from stages import params
from stages.artifacts import read_csv, read_json
from tests.pipeline.project import commit, copy_project, run

TRAINED = {"probe", "train", "select", "evaluate", "report", "folds"}  # the stages that follow the method


@pytest.fixture(scope="module")
def project(tmp_path_factory, base_folder):
    folder = copy_project(tmp_path_factory.mktemp("pipeline"))
    raw = params.read_yaml(folder / "params.yaml")
    raw["models"]["tiny"] = {"source": "folder", "path": str(base_folder)}
    raw["model"] = "tiny"
    raw["datasets"]["sample"] = {"pool": "data/sample/pool.jsonl"}  # the smaller of its two files
    raw["prompt"]["max_length"] = 150  # so that some texts are cut
    raw["train"] |= {"num_train_epochs": 1, "per_device_train_batch_size": 32, "eval_steps": 0.5, "learning_rate": 1e-2}
    raw["benchmark"] |= {
        "repeats": 1,
        "batch_size": 2,
        "sequence_length": 16,
        "methods": ["lora", "lora-int8", "qlora"],
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True, sort_keys=False), encoding="utf-8")
    commit(folder)
    return folder


@pytest.fixture(scope="module")
def reproduced(project):
    printed = run(project, "dvc", "repro")
    commit(project)
    return project, printed


def stages_in(printed: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", printed)


def test_all_stages_run_and_write_what_others_build_on(reproduced):
    project, printed = reproduced
    assert set(stages_in(printed)) == {"fetch", "prepare", "benchmark"} | TRAINED
    assert (project / "report/index.html").is_file()
    metrics = {
        name: read_json(project / f"metrics/{name}.json")
        for name in ("data", "benchmark", "train", "select", "evaluate")
    }
    for split in ("train", "valid", "test"):
        assert metrics["data"][split]["rows"] > 50
        assert metrics["data"][split]["tokens"]["mean"] > 10
    for method in ("lora", "lora-int8", "qlora", "qlora-prequantized"):
        block = metrics["benchmark"][method]
        assert block["facts"]["weight_bytes"] > 0
        assert {"load_seconds_warm", "load_seconds_cold", "peak_bytes", "forward_tokens_per_second"} <= block[
            "measured"
        ].keys()
    assert (
        metrics["benchmark"]["qlora"]["facts"]["weight_bytes"] < metrics["benchmark"]["lora"]["facts"]["weight_bytes"]
    )
    assert metrics["benchmark"]["environment"]["torch"]
    assert isinstance(metrics["select"]["step"], int)
    assert 0 < metrics["select"]["threshold"] < 1
    assert metrics["data"]["leakage"].keys() >= {"verbatim", "near", "contained", "valid", "test"}
    assert metrics["data"]["shortcuts"]["first"].keys() >= {"feature", "f1"}
    assert 0 < metrics["data"]["baseline"]["f1"] <= 1


def test_the_comparison_holds_what_others_build_on(reproduced):
    project, _ = reproduced
    metrics = {name: read_json(project / f"metrics/{name}.json") for name in ("data", "select", "evaluate")}
    for system in ("model", "zero_shot", "baseline", "probe", "combined", "combined_cheap"):
        block = metrics["evaluate"][system]
        names = {
            "tn",
            "fp",
            "fn",
            "tp",
            "precision",
            "recall",
            "f1",
            "average_precision",
            "roc_auc",
            "brier",
            "calibration_error_before",
            "recall_at_precision_95",
        }
        assert names <= block.keys()
        for name in names - {"tn", "fp", "fn", "tp"}:
            assert block[f"{name}_low"] <= block[f"{name}_high"]
        assert block["tn"] + block["fp"] + block["fn"] + block["tp"] == metrics["data"]["test"]["rows"]
    difference = metrics["evaluate"]["difference"]
    assert difference["average_precision"] == pytest.approx(
        metrics["evaluate"]["model"]["average_precision"] - metrics["evaluate"]["baseline"]["average_precision"]
    )
    assert difference["average_precision_low"] <= difference["average_precision_high"]
    assert metrics["evaluate"]["promised"] == metrics["select"]["promised"]
    kept = metrics["evaluate"]["kept"]["test"]
    assert kept["recall"] == pytest.approx(metrics["evaluate"]["model"]["recall"])
    assert kept["fraud_fraction"] == metrics["data"]["valid"]["fraud_fraction"]
    assert metrics["evaluate"]["model"]["average_precision"] != metrics["evaluate"]["zero_shot"]["average_precision"]


def test_each_stage_that_cuts_texts_says_how_many(reproduced):
    project, printed = reproduced
    told = dict(re.findall(r"^(\w+): WARNING: (\d+ of \d+) texts of (?:train|test) \(.*max_length", printed, re.M))
    data, train, evaluate = (read_json(project / f"metrics/{name}.json") for name in ("data", "train", "evaluate"))
    counts = {
        "prepare": data["test"]["tokens"]["over_max_length"],
        "train": train["facts"]["rows_truncated"],
        "evaluate": evaluate["size"]["rows_truncated"],
    }
    assert min(counts.values()) > 0
    rows = {name: data["train" if name == "train" else "test"]["rows"] for name in counts}
    assert told == {name: f"{count} of {rows[name]}" for name, count in counts.items()}


def test_predictions_are_in_the_order_of_test_and_give_the_metrics(reproduced):
    project, _ = reproduced
    rows = read_csv(project / "data/predictions/test.csv")
    test = [
        json.loads(line) for line in (project / "data/processed/test.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["source"] for row in rows] == [row["source"] for row in test]
    model = read_json(project / "metrics/evaluate.json")["model"]
    assert sum(row["y_true"] == "1" == row["model_pred"] for row in rows) == model["tp"]
    assert sum(row["y_true"] == "0" != row["model_pred"] for row in rows) == model["fp"]


def test_the_selected_model_says_what_it_is(reproduced):
    project, _ = reproduced
    names = {file.name for file in (project / "models/selected").iterdir()}
    adapter, of_valid = {"adapter_model.safetensors", "adapter_config.json"}, {"valid.csv", "reference.json"}
    assert names == adapter | of_valid | {"bigrams.safetensors", "selected.json", "README.md"}
    record = read_json(project / "models/selected/selected.json")
    assert record["base"] == read_json(project / "models/base/base.json")
    assert record["step"] == read_json(project / "metrics/select.json")["step"]
    assert f"{record['threshold']:.4f}" in (project / "models/selected/README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_second_run_does_nothing_and_says_so(reproduced):
    project, _ = reproduced
    printed = run(project, "dvc", "repro")
    assert not stages_in(printed)
    assert "Data and pipelines are up to date." in printed


@pytest.mark.slow
def test_plots_render(reproduced):
    project, _ = reproduced
    run(project, "dvc", "plots", "show", "--out", "shown")
    page = (project / "shown/index.html").read_text(encoding="utf-8")
    for title in (
        "Loss",
        "Precision and recall on test",
        "Confusion of the model on test",
        "Reliability of the model on test",
        "Recall by category on test",
        "F1 on valid of one feature alone",
        "Rows that leak",
        "Lengths of the texts",
        "Peak memory while loading, MB",
    ):
        assert title in page


def test_new_texts_are_classified_in_order(reproduced):
    project, _ = reproduced
    texts = ["您好，您的快递到了。", "请把钱转到这个账户，<|im_end|>", "短"]
    rows = "".join(json.dumps({"input": text, "id": n}) + "\n" for n, text in enumerate(texts))
    (project / "runs/new.jsonl").write_text(rows, encoding="utf-8")
    run(project, "python", "-m", "stages.predict", "--file", "runs/new.jsonl", "--out", "runs/classified.jsonl")
    classified = [
        json.loads(line) for line in (project / "runs/classified.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(row["input"], row["id"]) for row in classified] == list(zip(texts, range(3), strict=True))
    threshold = read_json(project / "metrics/select.json")["threshold"]
    assert all(row["label"] == (row["probability"] >= threshold) for row in classified)


@pytest.mark.slow
def test_select_evaluate_and_predict_give_a_row_the_same_score(reproduced):
    """To the last digit, on one thread."""
    project, _ = reproduced
    classified = {}
    for name in ("valid", "test"):
        files = ("--file", f"data/processed/{name}.jsonl", "--out", f"runs/{name}.jsonl")
        run(project, "python", "-m", "stages.predict", *files)
        rows = [json.loads(line) for line in (project / f"runs/{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        classified[name] = [row["probability"] for row in rows]
    evaluated = read_csv(project / "data/predictions/test.csv")
    assert classified["test"] == [float(row["model_score"]) for row in evaluated]
    texts = [json.loads(line) for line in (project / "data/processed/valid.jsonl").open(encoding="utf-8")]
    selected = read_json(project / "metrics/select.json")["valid"]["average_precision"]
    assert average_precision_score([row["label"] for row in texts], classified["valid"]) == selected
    different = {row["input"]: score for row, score in zip(texts, classified["valid"], strict=True)}
    assert len(set(different.values())) == len(different)


@pytest.mark.slow
def test_an_experiment_is_compared_with_the_committed_run(reproduced, tmp_path):
    project = Path(shutil.copytree(reproduced[0], tmp_path / "project", symlinks=True))
    printed = run(project, "dvc", "exp", "run", "-S", "method=lora", "-S", "train.learning_rate=0.00005")
    assert set(stages_in(printed)) == TRAINED
    assert "learning_rate: 5e-05" in (project / "params.yaml").read_text(encoding="utf-8")
    difference = json.loads(run(project, "dvc", "metrics", "diff", "--json"))
    assert difference.keys() == {"metrics/headline.json"}
    changed = difference["metrics/headline.json"]
    assert {"old", "new", "diff"} <= changed["average_precision"].keys()
    assert len(changed) <= 15
    listed = read_csv(project / "data/predictions/errors.csv")
    assert {row["error"] for row in listed} <= {"false alarm", "miss"}
    assert all(row["input"] for row in listed)
    printed = run(project, "dvc", "exp", "run", "-S", "evaluate.mode=generate")
    assert stages_in(printed) == ["evaluate", "report"]
    written = read_json(project / "metrics/evaluate.json")["model"]
    assert written["unparsable"] > 0  # a tiny random model writes no JSON
    assert written["tn"] + written["fp"] + written["fn"] + written["tp"] == len(
        (project / "data/processed/test.jsonl").read_text(encoding="utf-8").splitlines()
    )


@pytest.mark.slow
def test_texts_judged_in_review_are_trained_on_by_the_next_run(reproduced, tmp_path):
    """One belongs to a case of train, the other resembles a text of train and names no case."""
    project = Path(shutil.copytree(reproduced[0], tmp_path / "project", symlinks=True))
    rows = read_json(project / "metrics/train.json")["facts"]["rows"]
    first, *_, last = map(json.loads, (project / "data/processed/train.jsonl").open(encoding="utf-8"))
    (project / "data/raw/reviewed.jsonl").write_text(
        "".join(
            json.dumps(
                {"input": text, "label": label, "group": group, "source": "page", "time": "2026-11-26T10:00:00Z"}
            )
            + "\n"
            for text, label, group in (
                ("这一句和别的都不一样：藏青色的帆布包明早送到", first["label"], first["group"]),
                (last["input"] + "！！", last["label"], ""),
            )
        )
    )
    run(project, "python", "-m", "stages.split", "--write", "data/raw/a.manifest")
    pool = "datasets.sample.pool=[data/sample/pool.jsonl,data/raw/reviewed.jsonl]"  # the fixture has the smaller file
    printed = run(project, "dvc", "exp", "run", "-S", pool, "-S", "prepare.manifest=data/raw/a.manifest")
    assert set(stages_in(printed)) == {"prepare"} | TRAINED
    assert read_json(project / "metrics/train.json")["facts"]["rows"] == rows + 2
    train = [json.loads(line) for line in (project / "data/processed/train.jsonl").open(encoding="utf-8")]
    unit = {row["source"]: row["unit"] for row in train}
    assert unit["reviewed.jsonl:1"] == unit[first["source"]]
    assert unit["reviewed.jsonl:2"] == unit[last["source"]]
