"""The parts of `make folds` on DVC's queue, with a stand-in for the stages before it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from stages.artifacts import read_csv, read_json
from stages.out_of_fold import calibrated_by
from tests.pipeline.project import commit, copy_project, git, run

pytestmark = pytest.mark.slow

# Writes what prepare, probe, select and evaluate write of a pool of 60 rows. The model's log-odds name the fold that
# was test, and rank its valid the other way round in fold 3 alone. The record's calibration is that of another system.
STAND_IN = """
import json
from pathlib import Path
from stages.params import read_yaml
from stages.text.example import Example, write_examples
from stages.artifacts import write_csv, write_json
from stages.out_of_fold import write_scores

fold = read_yaml(Path("params.yaml"))["prepare"]["fold"]
pool = [Example(f"text {n}", n % 2 == 0, source=f"a:{n}", unit=n // 2, fold=n // 2 % 5) for n in range(60)]
test = [e for e in pool if e.fold == (4 if fold is None else fold)]
rest = [e for e in pool if e not in test]
for name, rows in {"train": rest[8:], "valid": rest[:8], "test": test}.items():
    write_examples(Path(f"data/processed/{name}.jsonl"), rows)
score = {e.source: (n * 7 % 11 - 5) / 4 + e.label for n, e in enumerate(pool)}
if fold is None:
    write_scores(Path("data/processed/baseline/folds.csv"), score, ((s, s) for s in score.values()))
offset = -1 if fold is None else fold
rows = [{"source": e.source, "model_log_odds": score[e.source] + offset} for e in test]
write_csv(Path("data/predictions/test.csv"), rows, ["source", "model_log_odds"])
sign = -1 if fold == 3 else 1
of_valid = [{"log_odds": sign * score[e.source] + offset} for e in rest[:8]]
write_csv(Path("models/selected/valid.csv"), of_valid, ["log_odds"])
write_csv(Path("data/probe/valid.csv"), of_valid, ["log_odds"])
write_json(Path("models/selected/selected.json"), {"step": 7, "temperature": 2.0, "offset": 0.5, "threshold": 0.5})
write_json(Path("metrics/evaluate.json"), {"environment": {"device": "cpu"}, "model": {"f1": 0.5}})
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("folds"))
    (folder / "stand_in.py").write_text(STAND_IN)
    stages = {
        "prepare": {
            "cmd": "python stand_in.py",
            "deps": ["stand_in.py"],
            "params": ["prepare"],
            "outs": ["data/processed", "data/probe", "data/predictions", "models/selected"],
            "metrics": [{"metrics/evaluate.json": {"cache": False}}],
        },
        "folds": yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["folds"],
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    run(folder, "dvc", "repro")
    commit(folder)
    return folder


def scores(numbers: list[int]) -> np.ndarray:
    """What STAND_IN scores rows with, without the fold."""
    return np.array([(number * 7 % 11 - 5) / 4 + (number % 2 == 0) for number in numbers])


def test_five_experiments_give_each_row_a_score_that_the_last_stage_reads(project, tmp_path):
    folder = Path(shutil.copytree(project, tmp_path / "project"))
    assert "model" not in read_json(folder / "metrics/folds.json")
    run(folder, "python", "-m", "stages.collect", "--check")
    run(folder, "dvc", "exp", "run", "--queue", "--set-param", "prepare.fold=0,1,2,3,4")
    run(folder, "dvc", "exp", "run", "--run-all")
    assert "60 rows in data/folds" in run(folder, "python", "-m", "stages.collect")
    rows = {row["source"]: row for row in read_csv(folder / "data/folds/model.csv")}
    assert len(rows) == 60
    for fold in range(5):
        test = [number for number in range(60) if number // 2 % 5 == fold]
        valid = [number for number in range(60) if number not in test][:8]
        raw = scores(test) + fold
        of_valid = (-1 if fold == 3 else 1) * scores(valid) + fold
        calibrated = calibrated_by([number % 2 == 0 for number in valid], of_valid, raw)
        for place, number in enumerate(test):
            assert float(rows[f"a:{number}"]["log_odds"]) == raw[place]
            assert float(rows[f"a:{number}"]["calibrated"]) == pytest.approx(calibrated[place], abs=1e-9)
    record = read_json(folder / "data/folds/model.json")
    assert (record["rows"], record["dataset"], record["environment"]) == (60, "sample", {"device": "cpu"})
    assert record["folds"]["3"] == {"step": 7, "temperature": 2.0, "offset": 0.5, "threshold": 0.5}
    assert record["date"] == git(folder, "log", "-1", "--format=%cs").strip()
    printed = run(folder, "dvc", "repro", "--single-item", "folds")
    assert "folds: combined minus baseline: average precision" in printed
    report = json.loads((folder / "metrics/folds.json").read_text(encoding="utf-8"))
    assert report["collected"]["with_present_params"] is True
    git(folder, "add", "--all")
    assert {"data/folds/model.csv", "data/folds/model.json"} <= set(git(folder, "ls-files").splitlines())


def test_a_fold_that_is_missing_is_named(project, tmp_path):
    folder = Path(shutil.copytree(project, tmp_path / "project"))
    run(folder, "dvc", "exp", "run", "--temp", "--set-param", "prepare.fold=1")
    with pytest.raises(
        AssertionError, match="no finished experiment of the current params with prepare.fold 0, 2, 3, 4"
    ):
        run(folder, "python", "-m", "stages.collect")
