"""Selects the runs that belong together, and computes mean and standard deviation of their metrics."""

import copy
import json
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.paths import BASE_MODEL, LOCK, METRICS, PROCESSED
from stages.repro import lock

BLOCKS = ("model", "zero_shot", "baseline", "difference")
WORKING = ("prepare", "probe", "train", "select", "evaluate")  # stages that figures come from
NAMED = 3  # files that a message names


def read_figures(revision: str) -> dict[str, Any]:
    """The figures of a commit or an experiment, empty if it has none."""
    return json.loads(read_text(revision, METRICS / "evaluate.json") or "{}")


def read_text(revision: str, path: Path) -> str | None:
    """A file that git holds of a commit or an experiment, None if it has none."""
    shown = subprocess.run(["git", "show", f"{revision}:./{path.as_posix()}"], capture_output=True, text=True)
    return None if shown.returncode else shown.stdout


def read_sources(revision: str, prepare: dict[str, Any]) -> dict[tuple[str, ...], str]:
    """Hashes of what the figures come from besides params: code, the base model and the splits, by dvc.lock.

    Args:
        revision: a commit or an experiment.
        prepare: its params. The splits of runs with other ones are others, so these are part of their keys.
    """
    stages = lock.parse((read_text(revision, LOCK) or "").encode()) or {}
    splits = tuple(f"{prepare.get(key)}" for key in ("fold", "train_rows"))
    found: dict[tuple[str, ...], str] = {}
    for name in (*WORKING, "report"):  # of these, report alone names test
        for dep in stages.get(name, {}).get("deps", []):
            path, content = dep["path"], dep.get("md5") or json.dumps(dep.get("files"))  # of a remote with versions
            if Path(path).parent == PROCESSED:
                found[path, *splits] = content
            elif name in WORKING and (path == BASE_MODEL.as_posix() or path.startswith("stages/")):
                found[path,] = content
    return found


@dataclass(frozen=True)
class Run:
    """A finished run.

    params: params.yaml, or what DVC tracks of it. metrics: metrics/evaluate.json. revision: its commit. sources: what
    `read_sources` found.
    """

    params: dict[str, Any]
    metrics: dict[str, Any]
    revision: str = ""
    sources: dict[tuple[str, ...], str] = field(default_factory=dict)

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
    """Yields the finished experiments of the commit, the newest first, and then the commit, from `dvc exp show --json`.

    DVC lists only the headline of their figures, so the others are read from git.

    The workspace, listed first, does not count: its params may have been edited after its metrics were written. DVC
    lists an experiment that failed or still runs with its own params, but with the metrics of its commit.
    """
    for commit in shown[1:]:
        groups = commit.get("experiments") or []
        done = [group for group in groups if (group.get("executor") or {}).get("state", "success") == "success"]
        for revision in [*(revision for group in done for revision in group["revs"]), commit]:
            data = revision.get("data") or {}
            params = data.get("params", {}).get("params.yaml", {}).get("data")
            if params and (metrics := read_figures(revision["rev"])):
                yield Run(params, metrics, revision["rev"], read_sources(revision["rev"], params.get("prepare", {})))


def same_but_for_seed(runs: list[Run], params: dict[str, Any]) -> list[Run]:
    """The runs that differ from these params only in the seed, one per seed, sorted by seed."""
    alike = same_but_for(runs, params, "train.seed")
    return [alike[seed] for seed in sorted(alike)]


def same_but_for(runs: list[Run], params: dict[str, Any], *keys: str) -> dict[tuple[Any, ...], Run]:
    """The runs that differ from these params in some keys alone, by their values; of several the one listed first.

    Prints which ones are left out because their code, base model or rows are not those of the ones before.

    Args:
        runs: finished ones, the newest first.
        params: as `dvc exp show` lists them.
        keys: dotted, such as "train.seed".
    """
    rest = Run(params, {}).without(keys)
    alike = of_same_sources([run for run in runs if run.without(keys) == rest])
    return {run.values(keys): run for run in reversed(alike)}


def of_same_sources(runs: list[Run]) -> list[Run]:
    """The runs with the sources of the first one. Prints the others."""
    known: dict[tuple[str, ...], str] = {}
    kept = []
    for run in runs:
        others = sorted({key[0] for key, content in run.sources.items() if known.get(key, content) != content})
        if others:
            named = ", ".join(others[:NAMED]) + (f" and {len(others) - NAMED} more" if len(others) > NAMED else "")
            print(f"left out {run.revision[:7]}: it is of other {named} than {runs[0].revision[:7]}")
        else:
            known |= run.sources
            kept.append(run)
    return kept


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
