"""The same run under other seeds: which runs count."""

import pytest

from stages.seeds.statistics import Run, finished, same_but_for_seed, spread


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
