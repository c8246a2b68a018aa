"""The parts of `make curve` on DVC's queue, with a stand-in for the stages."""

import shutil
from pathlib import Path

import pytest
import yaml

from stages.artifacts import read_json
from tests.pipeline.project import commit, copy_project, run

pytestmark = pytest.mark.slow

# Writes what the stages write of a pool of 60 rows. The model is wrong on every text with 10 rows, right with all; the
# baseline is right but for each third unit; the probe knows nothing. Each fold's scores have a scale of their own.
STAND_IN = """
from pathlib import Path
from stages.params import read_yaml
from stages.text.example import Example, write_examples
from stages.artifacts import write_csv, write_json

prepare = read_yaml(Path("params.yaml"))["prepare"]
fold, most = prepare["fold"], prepare["train_rows"]
pool = [Example(f"text {n}", n % 2 == 0, source=f"a:{n}", unit=n // 2, fold=n // 2 % 5) for n in range(60)]
test = [e for e in pool if e.fold == (4 if fold is None else fold)]
rest = [e for e in pool if e not in test]
sets = {"train": rest[16:][:most], "valid": rest[:16], "test": test}
scale, shift = (1 + fold, 3 * fold) if fold else (1, 0)

def scores(e):
    right = 1 if e.label else -1
    noise = (e.unit * 7 % 11) / 100
    model = right if most is None else -right
    baseline = right if e.unit % 3 else -right
    return {"model": model + noise, "baseline": baseline + noise, "probe": noise}

for name, rows in sets.items():
    write_examples(Path(f"data/processed/{name}.jsonl"), rows)
for name, folder in {"baseline": "data/processed/baseline", "probe": "data/probe", "model": "models/selected"}.items():
    rows = [{"log_odds": scale * scores(e)[name] + shift} for e in sets["valid"]]
    write_csv(Path(folder) / "valid.csv", rows, ["log_odds"])
rows = [{"source": e.source} | {f"{k}_log_odds": scale * v + shift for k, v in scores(e).items()} for e in test]
write_csv(Path("data/predictions/test.csv"), rows, list(rows[0]))
train = {"rows": len(sets["train"]), "units": len({e.unit for e in sets["train"]})}
write_json(Path("metrics/data.json"), {"train": train})
value = 0.9 if most is None else most / 100
block = {"average_precision": value, "average_precision_low": value - 0.1, "average_precision_high": value + 0.05}
report = {name: block for name in ("baseline", "probe", "combined_cheap", "model", "combined")}
report |= {"ahead": {"model": block, "combined": block}, "best_cheap": {"name": "baseline"}}
write_json(Path("metrics/evaluate.json"), report | {"size": {"rows": 12, "units": 6}, "environment": {"device": "cpu"}})
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("curve"))
    (folder / "stand_in.py").write_text(STAND_IN)
    stage = {
        "cmd": "python stand_in.py",
        "deps": ["stand_in.py"],
        "params": ["prepare"],
        "outs": ["data/processed", "data/probe", "data/predictions", "models/selected"],
        "metrics": [{f"metrics/{name}.json": {"cache": False}} for name in ("data", "evaluate")],
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": stage}}))
    run(folder, "dvc", "repro")
    commit(folder)
    return folder


def test_sizes_are_compared_by_the_figures_of_their_experiments(project, tmp_path):
    folder = Path(shutil.copytree(project, tmp_path / "project"))
    options = ["--sizes", "10,20,all"]
    run(folder, "python", "-m", "stages.curve", "--queue", *options)
    run(folder, "dvc", "exp", "run", "--run-all")
    printed = run(folder, "python", "-m", "stages.curve", *options)
    assert "curve: 10 texts of train: minus baseline: model 0.100 [0.000, 0.150], combined 0.100" in printed
    report = read_json(folder / "metrics/curve.json")
    assert (report["folds"], report["dataset"], set(report["sizes"])) == (1, "sample", {"10", "20", "all"})
    assert [report["sizes"][size]["train"]["rows"] for size in ("10", "20", "all")] == [10, 20, 32]
    assert [report["sizes"][size]["model"]["average_precision"] for size in ("10", "20", "all")] == [0.1, 0.2, 0.9]
    with pytest.raises(AssertionError, match="no finished experiment .* for 1 of 2 runs, the first with .* 30 and"):
        run(folder, "python", "-m", "stages.curve", "--sizes", "10,30")


def test_folds_are_pooled_by_calibrated_scores_so_that_each_row_counts_once(project, tmp_path):
    folder = Path(shutil.copytree(project, tmp_path / "project"))
    options = ["--folds", "--sizes", "10,all"]
    run(folder, "python", "-m", "stages.curve", "--queue", *options)
    run(folder, "dvc", "exp", "run", "--run-all")
    run(folder, "python", "-m", "stages.curve", *options)
    report = read_json(folder / "metrics/curve.json")
    few, everything = report["sizes"]["10"], report["sizes"]["all"]
    assert few["test"] == everything["test"] == {"rows": 60, "units": 30}
    assert (few["train"], everything["train"]["rows"]) == ({"rows": 10, "units": 5}, 32)
    # Right on every row after calibration, though each fold has another scale.
    assert everything["model"]["average_precision"] == 1
    assert few["model"]["average_precision"] < few["baseline"]["average_precision"] < 1
    assert everything["baseline"] == few["baseline"]
    ahead = everything["ahead"]["model"]
    gain = everything["model"]["average_precision"] - everything[everything["best_cheap"]["name"]]["average_precision"]
    assert ahead["average_precision"] == pytest.approx(gain)
    assert ahead["average_precision_low"] <= ahead["average_precision"] <= ahead["average_precision_high"]
