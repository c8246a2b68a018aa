"""Selects the runs that belong together, and computes mean and standard deviation of their metrics."""

import copy
import json
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stages.paths import METRICS

BLOCKS = ("model", "zero_shot", "baseline", "difference")


def read_figures(revision: str) -> dict[str, Any]:
    """The figures of a commit or an experiment, empty if it has none."""
    path = f"./{(METRICS / 'evaluate.json').as_posix()}"
    shown = subprocess.run(["git", "show", f"{revision}:{path}"], capture_output=True, text=True)
    return {} if shown.returncode else json.loads(shown.stdout)


@dataclass(frozen=True)
class Run:
    """A finished run.

    params: params.yaml, or what DVC tracks of it. metrics: metrics/evaluate.json. revision: its commit.
    """

    params: dict[str, Any]
    metrics: dict[str, Any]
    revision: str = ""

    @property
    def seed(self) -> int:
        return self.params["train"]["seed"]

    def without(self, keys: Sequence[str]) -> dict[str, Any]:
        """The params, but for those of these dotted keys."""
        rest = copy.deepcopy(self.params)
        for section, key in (dotted.split(".") for dotted in keys):
            del rest[section][key]
        return rest

    def values(self, keys: Sequence[str]) -> tuple[Any, ...]:
        """The params of these dotted keys."""
        return tuple(self.params[section][key] for section, key in (dotted.split(".") for dotted in keys))


def finished(shown: list[dict[str, Any]]) -> Iterator[Run]:
    """Yields the commit and its finished experiments from the output of `dvc exp show --json`.

    DVC lists only the headline of their figures, so the others are read from git.

    The workspace, listed first, does not count: its params may have been edited after its metrics were written. DVC
    lists an experiment that failed or still runs with its own params, but with the metrics of its commit.
    """
    for commit in shown[1:]:
        groups = commit.get("experiments") or []
        done = [group for group in groups if (group.get("executor") or {}).get("state", "success") == "success"]
        for revision in [commit, *(revision for group in done for revision in group["revs"])]:
            data = revision.get("data") or {}
            params = data.get("params", {}).get("params.yaml", {}).get("data")
            if params and (metrics := read_figures(revision["rev"])):
                yield Run(params, metrics, revision["rev"])


def same_but_for_seed(runs: list[Run], params: dict[str, Any]) -> list[Run]:
    """The runs that differ from these params only in the seed, one per seed, sorted by seed."""
    alike = same_but_for(runs, params, "train.seed")
    return [alike[seed] for seed in sorted(alike)]


def same_but_for(runs: list[Run], params: dict[str, Any], *keys: str) -> dict[tuple[Any, ...], Run]:
    """The runs that differ from these params in some keys alone, by their values; of several the one listed first.

    Args:
        runs: finished ones, the newest first.
        params: as `dvc exp show` lists them.
        keys: dotted, such as "train.seed".
    """
    rest = Run(params, {}).without(keys)
    return {run.values(keys): run for run in reversed(runs) if run.without(keys) == rest}


def spread(runs: list[Run]) -> dict[str, Any]:
    """Mean, sample standard deviation, minimum and maximum of each metric over the runs, and their number (`seeds`)."""
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
