import dataclasses
import shutil
import subprocess
import sys

import pytest

from stages import params
from stages.errors import UserError
from stages.seeds.__main__ import main
from stages.seeds.experiments import require_queue
from stages.seeds.statistics import Run, finished, same_but_for_seed, spread
from tests.conftest import ROOT
from tests.pipeline.project import git


def make(seed, f1, rate=1e-4):
    return Run(
        {"train": {"seed": seed, "learning_rate": rate}, "method": "qlora"},
        {"model": {"f1": f1, "f1_low": 0.1, "samples_per_second": 9}, "difference": {"f1": f1 - 0.5}},
    )


def test_runs_with_other_params_are_left_out_and_the_newest_of_a_seed_counts():
    runs = [make(42, 0.8), make(1, 0.6), make(1, 0.1), make(2, 0.7, rate=1e-3), make(3, 0.7)]
    alike = same_but_for_seed(runs, make(7, 0).params)
    assert [run.seed for run in alike] == [1, 3, 42]
    report = spread(alike)
    assert report["seeds"] == 3
    assert report["model"] == {"f1": {"mean": pytest.approx(0.7), "std": pytest.approx(0.1), "min": 0.6, "max": 0.8}}
    assert report["difference"]["f1"]["mean"] == pytest.approx(0.2)


def listed(run):
    return {
        "data": {
            "metrics": {"metrics/evaluate.json": {"data": run.metrics}},
            "params": {"params.yaml": {"data": run.params}},
        }
    }


def test_experiments_that_failed_or_still_run_do_not_count():
    def group(seed, executor):
        return {"executor": executor, "revs": [listed(make(seed, 0.7))]}

    groups = [
        group(1, None),
        group(2, {"state": "success"}),
        group(3, {"state": "failed"}),
        group(4, {"state": "running"}),
    ]
    edited = listed(make(1, 0.8))  # the workspace: another seed, and the metrics of the commit
    shown = [edited, {**listed(make(42, 0.8)), "experiments": groups}, {"data": None}]
    runs = same_but_for_seed(list(finished(shown)), make(1, 0).params)
    assert [(run.seed, run.metrics["model"]["f1"]) for run in runs] == [(1, 0.7), (2, 0.7), (42, 0.8)]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git repository with data/raw and what a data set needs to be chosen."""
    (tmp_path / "data/raw/calls").mkdir(parents=True)
    (tmp_path / "data/raw/mine.jsonl").write_text("{}\n")
    (tmp_path / "data/raw/calls/a b.csv").write_text("case\n")
    git(tmp_path, "init", "--quiet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chosen(**entry) -> params.Params:
    return dataclasses.replace(params.load(ROOT / "params.yaml"), dataset=params.Dataset(**entry))


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"pool": "data/raw/mine.jsonl"}, "data/raw/mine.jsonl"),
        ({"pool": ["data/sample/pool.jsonl", "data/raw/mine.jsonl"]}, "data/raw/mine.jsonl"),
        ({"dialogues": "data/raw/calls"}, "data/raw/calls"),
    ],
)
def test_raw_data_that_experiments_would_not_have_are_named(project, entry, path):
    with pytest.raises(UserError, match=f"`dvc add {path} && git add {path}.dvc`"):
        require_queue(chosen(**entry))
    (project / f"{path}.dvc").write_text("outs: []\n")
    with pytest.raises(UserError, match="git add"):
        require_queue(chosen(**entry))
    git(project, "add", f"{path}.dvc")
    require_queue(chosen(**entry))


def test_raw_data_that_git_or_a_folder_above_holds_are_no_problem(project):
    require_queue(chosen(pool="data/sample/pool.jsonl"))
    git(project, "add", "data/raw/mine.jsonl")
    require_queue(chosen(pool="data/raw/mine.jsonl"))
    git(project, "rm", "--quiet", "--cached", "data/raw/mine.jsonl")
    (project / "data/raw.dvc").write_text("outs: []\n")
    git(project, "add", "data/raw.dvc")
    require_queue(chosen(train="data/raw/mine.jsonl", valid="data/raw/calls/a b.csv", test="data/raw/mine.jsonl"))


@pytest.mark.parametrize(("name", "named"), [("项目", "目项"), ("a%41", "%"), ("nr#1 new", "#")])
def test_a_folder_in_which_the_queue_would_hang_is_named(project, monkeypatch, name, named):
    (project / name).mkdir()
    monkeypatch.chdir(project / name)
    with pytest.raises(UserError, match=f"{name}: DVC's queue fails or hangs .* holds {named} "):
        require_queue(chosen(pool="data/sample/pool.jsonl"))
    (project / "with space-1.0_x").mkdir()
    monkeypatch.chdir(project / "with space-1.0_x")
    require_queue(chosen(pool="data/sample/pool.jsonl"))


def test_the_check_reports_a_problem_in_a_sentence(project):
    (project / "项目").mkdir()
    shutil.copyfile(ROOT / "params.yaml", project / "项目/params.yaml")
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "stages.seeds", "--check"]
    done = subprocess.run(command, cwd=project / "项目", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {project / '项目'}: DVC's queue fails or hangs in a folder whose path ")


def test_make_seeds_looks_before_it_queues():
    lines = subprocess.run(["make", "--dry-run", "seeds"], cwd=ROOT, capture_output=True, text=True).stdout
    assert 0 < lines.index("stages.repro --repair") < lines.index("stages.seeds --check") < lines.index("--queue")


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_a_method_that_sets_the_seed_is_refused(changed, tmp_path, monkeypatch, arguments):
    changed({"methods/qlora/train": {"seed": 7}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["seeds", *arguments])
    with pytest.raises(UserError, match="methods.qlora.train.seed is 7 and replaces train.seed"):
        main()
