"""What the learning curve reads of experiments: their figures, or out of fold their scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.classifier.trained import VALID_FILE
from stages.collect.experiments import date_of, require_rows
from stages.folds.compare import compare_out_of_fold
from stages.out_of_fold import calibrated_by
from stages.params import Params
from stages.paths import BASELINE, METRICS, PREDICTIONS, PROBE, PROCESSED, SELECTED
from stages.revisions import Revision
from stages.seeds.statistics import Run
from stages.text.example import Example

SYSTEMS = ("baseline", "probe", "combined_cheap", "model", "combined")
AHEAD = ("model", "combined")
FIGURES = tuple(f"average_precision{end}" for end in ("", "_low", "_high"))
VALID_SCORES = {"baseline": BASELINE, "probe": PROBE, "model": SELECTED}  # folders with the scores of valid


@dataclass(frozen=True)
class Experiment(Revision):
    """A finished run and the files that it wrote."""

    advice: str = "run `make curve` again"

    def train(self) -> dict[str, int]:
        """How many rows and units the systems learned from."""
        described = self.json(METRICS / "data.json")["train"]
        return {key: described[key] for key in ("rows", "units")}

    def scores(self) -> dict[str, dict[str, float]]:
        """The log-odds of test by system and source, each calibrated on valid."""
        labels, test = (
            [row.label for row in self.examples(PROCESSED / "valid.jsonl")],
            self.table(PREDICTIONS / "test.csv"),
        )
        found = {}
        for system, folder in VALID_SCORES.items():
            of_valid = [float(row["log_odds"]) for row in self.table(folder / VALID_FILE)]
            of_test = [float(row[f"{system}_log_odds"]) for row in test]
            calibrated = calibrated_by(labels, np.array(of_valid), np.array(of_test))
            found[system] = dict(zip((row["source"] for row in test), calibrated.tolist(), strict=True))
        return found


def point_of_test(run: Run) -> dict[str, Any]:
    """A point of the curve, by the figures of one experiment on test."""
    return point(run.metrics) | {"train": Experiment(run.revision).train()} | origin([run])


def point_out_of_fold(runs: list[Run], pool: list[Example], train: set[str], chosen: Params) -> dict[str, Any]:
    """A point of the curve over the whole pool: each fold's rows, scored in the experiment in which the fold was test.

    Args:
        runs: the experiment of each fold.
        pool: n_rows rows, with their folds.
        train: sources of the rows on which the best cheap system is chosen.
        chosen: all params.
    """
    experiments = [Experiment(run.revision) for run in runs]
    require_rows(
        pool, [row for each in experiments for row in each.examples(PROCESSED / "test.jsonl")], "make curve FOLDS=1"
    )
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
