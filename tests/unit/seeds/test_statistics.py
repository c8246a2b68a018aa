"""The same run under other seeds: which runs count."""

from dataclasses import replace

import pytest

from stages.seeds.statistics import Run, finished, read_sources, same_but_for, same_but_for_seed, spread
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


def test_experiments_that_failed_or_still_run_do_not_count(monkeypatch):
    figures = {}
    monkeypatch.setattr("stages.seeds.statistics.read_figures", lambda revision: figures.get(revision, {}))

    def listed(run):
        figures[name := f"revision {len(figures)}"] = run.metrics
        return {"rev": name, "data": {"params": {"params.yaml": {"data": run.params}}}}

    def group(seed, executor):
        return {"executor": executor, "revs": [listed(make(seed, 0.7))]}

    groups = [
        group(1, None),
        group(2, {"state": "success"}),
        group(3, {"state": "failed"}),
        group(4, {"state": "running"}),
    ]
    edited = listed(make(1, 0.8))  # the workspace: another seed, and the metrics of the commit
    shown = [edited, {**listed(make(42, 0.8)), "experiments": groups}, {"rev": "none", "data": None}]
    runs = same_but_for_seed(list(finished(shown)), make(1, 0).params)
    assert [(run.seed, run.metrics["model"]["f1"]) for run in runs] == [(1, 0.7), (2, 0.7), (42, 0.8)]


def test_runs_of_other_code_or_rows_than_the_newest_are_left_out_and_named(capsys):
    sources = {("stages/train/trainer.py",): "1", ("data/processed/test.jsonl", "None", "None"): "2"}
    other = dict.fromkeys(sources, "3")
    runs = [replace(make(seed, 0.5), revision=f"{seed}" * 40, sources=sources) for seed in (1, 2)]
    runs += [replace(make(3, 0.5), revision="3" * 40, sources=other), replace(make(1, 0.9), sources=other)]
    assert [(run.seed, run.metrics["model"]["f1"]) for run in same_but_for_seed(runs, runs[0].params)] == [
        (1, 0.5),
        (2, 0.5),
    ]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "left out 3333333: it is of other data/processed/test.jsonl, stages/train/trainer.py than 1111111"
    )


def test_splits_are_compared_where_they_should_be_the_same(capsys):
    def of_size(rows, content):
        params = {"prepare": {"train_rows": rows, "fold": None}}
        sources = {("data/processed/train.jsonl", "None", f"{rows}"): content, ("stages/text/prompt.py",): "1"}
        return Run(params, {}, f"{rows} {content}", sources)

    runs = [of_size(None, "all"), of_size(200, "some"), of_size(200, "others")]
    found = same_but_for(runs, runs[0].params, "prepare.train_rows")
    assert [run.revision for run in found.values()] == ["200 some", "None all"]
    assert "left out 200 oth" in capsys.readouterr().out


def test_sources_are_code_base_model_and_splits_of_the_lock_in_git(project):
    assert read_sources("HEAD", {}) == {}
    entry = "{{path: {}, hash: md5, md5: {}, size: 1}}"
    lock = "schema: '2.0'\nstages:\n"
    for stage, paths in {
        "train": ["models/base", "stages/train/trainer.py", "data/processed/train.jsonl"],
        "select": ["models/checkpoints", "data/processed/baseline/valid.csv"],
        "report": ["data/processed/test.jsonl", "stages/report/__main__.py", "metrics/evaluate.json"],
    }.items():
        deps = ", ".join(entry.format(path, f"'{number}'") for number, path in enumerate(paths))
        lock += f"  {stage}: {{cmd: x, deps: [{deps}]}}\n"
    (project / "dvc.lock").write_text(lock)
    git(project, "add", "dvc.lock")
    git(project, "commit", "--quiet", "--message", "a run")
    assert read_sources("HEAD", {"train_rows": 200}) == {
        ("models/base",): "0",
        ("stages/train/trainer.py",): "1",
        ("data/processed/train.jsonl", "None", "200"): "2",
        ("data/processed/test.jsonl", "None", "200"): "0",
    }
    (project / "dvc.lock").write_text(lock[:40])
    git(project, "commit", "--quiet", "--all", "--message", "torn")
    assert read_sources("HEAD", {}) == {}
