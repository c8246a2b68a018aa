"""What the learning curve reads of experiments: their figures, or out of fold their scores."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dvc.api
import numpy as np
from dvc.exceptions import DvcException

from stages.classifier.trained import VALID_FILE
from stages.collect.experiments import date_of, require_rows
from stages.errors import UserError
from stages.folds.compare import compare_out_of_fold
from stages.out_of_fold import calibrated_by
from stages.params import Params
from stages.paths import BASELINE, METRICS, PREDICTIONS, PROBE, PROCESSED, SELECTED
from stages.seeds.statistics import Run
from stages.text.example import Example

SYSTEMS = ("baseline", "probe", "combined_cheap", "model", "combined")
AHEAD = ("model", "combined")
FIGURES = tuple(f"average_precision{end}" for end in ("", "_low", "_high"))
VALID_SCORES = {"baseline": BASELINE, "probe": PROBE, "model": SELECTED}  # folders with the scores of valid


@dataclass(frozen=True)
class Experiment:
    """A finished run and the files that it wrote."""

    run: Run

    @cached_property
    def files(self) -> Any:
        return dvc.api.DVCFileSystem(rev=self.run.revision)

    def text(self, path: Path) -> str:
        """The content of a file. Raises UserError if neither git nor DVC's cache holds it."""
        try:
            return self.files.read_bytes(path.as_posix()).decode("utf-8")
        except (DvcException, OSError) as error:
            raise UserError(
                f"{path} of the experiment {self.run.revision[:7]} can't be read ({error}): run `make curve` again"
            ) from None

    def examples(self, name: str) -> list[Example]:
        """The rows of train, valid or test."""
        lines = self.text(PROCESSED / f"{name}.jsonl").split("\n")
        return [Example(**json.loads(line)) for line in lines if line]

    def table(self, path: Path) -> list[dict[str, str]]:
        return list(csv.DictReader(self.text(path).splitlines()))

    def train(self) -> dict[str, int]:
        """How many rows and units the systems learned from."""
        described = json.loads(self.text(METRICS / "data.json"))["train"]
        return {key: described[key] for key in ("rows", "units")}

    def scores(self) -> dict[str, dict[str, float]]:
        """The log-odds of test by system and source, each calibrated on valid."""
        labels, test = [row.label for row in self.examples("valid")], self.table(PREDICTIONS / "test.csv")
        found = {}
        for system, folder in VALID_SCORES.items():
            of_valid = [float(row["log_odds"]) for row in self.table(folder / VALID_FILE)]
            of_test = [float(row[f"{system}_log_odds"]) for row in test]
            calibrated = calibrated_by(labels, np.array(of_valid), np.array(of_test))
            found[system] = dict(zip((row["source"] for row in test), calibrated.tolist(), strict=True))
        return found


def point_of_test(run: Run) -> dict[str, Any]:
    """A point of the curve, by the figures of one experiment on test."""
    return point(run.metrics) | {"train": Experiment(run).train()} | origin([run])


def point_out_of_fold(runs: list[Run], pool: list[Example], train: set[str], chosen: Params) -> dict[str, Any]:
    """A point of the curve over the whole pool: each fold's rows, scored in the experiment in which the fold was test.

    Args:
        runs: the experiment of each fold.
        pool: n_rows rows, with their folds.
        train: sources of the rows on which the best cheap system is chosen.
        chosen: all params.
    """
    experiments = [Experiment(run) for run in runs]
    require_rows(pool, [row for each in experiments for row in each.examples("test")], "make curve FOLDS=1")
    of_folds = [each.scores() for each in experiments]
    scores = {}
    for system in VALID_SCORES:
        by_source = {source: score for of_fold in of_folds for source, score in of_fold[system].items()}
        scores[system] = np.array([by_source[row.source] for row in pool])
    sizes = [each.train() for each in experiments]
    mean = {key: round(sum(size[key] for size in sizes) / len(sizes)) for key in ("rows", "units")}
    return point(compare_out_of_fold(pool, scores, train, chosen)) | {"train": mean} | origin(runs)


def point(report: Mapping[str, Any]) -> dict[str, Any]:
    """Average precision of each system, and how far trained ones are ahead, from a comparison of systems."""

    def figures(block: Mapping[str, Any]) -> dict[str, float]:
        return {key: block[key] for key in FIGURES if key in block}

    return {
        "test": {key: report["size"][key] for key in ("rows", "units")},
        "best_cheap": dict(report["best_cheap"]),
        **{system: figures(report[system]) for system in SYSTEMS},
        "ahead": {system: figures(report["ahead"][system]) for system in AHEAD},
    }


def origin(runs: list[Run]) -> dict[str, Any]:
    """When and where a point was made."""
    return {"date": max(map(date_of, runs)), "environment": runs[0].metrics["environment"]}
