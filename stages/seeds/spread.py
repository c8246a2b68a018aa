"""Which runs belong together, and how far their metrics lie apart."""

import copy
import statistics
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


def same_but_for_seed(runs: list[Run]) -> list[Run]:
    """The runs with the params of the first, one a seed, in the order of the seeds."""
    alike = {run.seed: run for run in reversed(runs) if run.rest == runs[0].rest}
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
