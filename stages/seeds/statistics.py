"""Which runs belong together, and how far their metrics lie apart."""

import copy
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BLOCKS = ("model", "zero_shot", "baseline", "difference")


@dataclass(frozen=True)
class Run:
    """params: params.yaml, or what DVC tracks of it; metrics: metrics/evaluate.json."""

    params: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def seed(self) -> int:
        return self.params["train"]["seed"]

    @property
    def rest(self) -> dict[str, Any]:
        rest = copy.deepcopy(self.params)
        del rest["train"]["seed"]
        return rest


def finished(shown: list[dict[str, Any]]) -> Iterator[Run]:
    """The commit and its finished experiments, of what `dvc exp show --json` prints.

    The workspace, listed first, does not count: its params may have been edited since its metrics were written. An
    experiment that failed or still runs is listed with its own params beside the metrics of its commit.
    """
    for commit in shown[1:]:
        groups = commit.get("experiments") or []
        done = [group for group in groups if (group.get("executor") or {}).get("state", "success") == "success"]
        for revision in [commit, *(revision for group in done for revision in group["revs"])]:
            data = revision.get("data") or {}
            metrics = data.get("metrics", {}).get("metrics/evaluate.json", {}).get("data")
            params = data.get("params", {}).get("params.yaml", {}).get("data")
            if metrics and params:
                yield Run(params, metrics)


def same_but_for_seed(runs: list[Run], params: dict[str, Any]) -> list[Run]:
    """The runs with these params but for the seed, one a seed, in the order of the seeds."""
    alike = {run.seed: run for run in reversed(runs) if run.rest == Run(params, {}).rest}
    return [alike[seed] for seed in sorted(alike)]


def spread(runs: list[Run]) -> dict[str, Any]:
    """Of each metric mean, sample standard deviation, least and greatest over the runs; `seeds`, how many they are."""
    report: dict[str, Any] = {"seeds": len(runs)}
    for block in BLOCKS:
        values = [run.metrics.get(block, {}) for run in runs]
        names = set.intersection(*(set(each) for each in values))
        report[block] = {
            name: {
                "mean": statistics.fmean(column),
                "std": statistics.stdev(column),
                "min": min(column),
                "max": max(column),
            }
            for name in sorted(names)
            if not name.endswith(("_low", "_high", "_per_second"))
            for column in [[float(each[name]) for each in values]]
        }
    return report
