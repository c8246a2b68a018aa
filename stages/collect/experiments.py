"""Reads the scores of a fold from the experiment in which the fold was test."""

import subprocess
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.classifier.trained import VALID_FILE
from stages.errors import UserError
from stages.out_of_fold import Score, calibrated_by
from stages.paths import PREDICTIONS, PROCESSED, SELECTED
from stages.revisions import Revision
from stages.seeds.statistics import Run
from stages.text.example import Example


@dataclass(frozen=True)
class Fold:
    """A fold's rows and scores, and where they were made.

    test: its rows. scores: by source. chosen: step and calibration of the model. environment: device and versions.
    date: of the experiment, YYYY-MM-DD.
    """

    test: list[Example]
    scores: dict[str, Score]
    chosen: dict[str, float]
    environment: dict[str, Any]
    date: str


def read_fold(number: int, run: Run) -> Fold:
    """The fold that was test in an experiment. Raises UserError if the experiment's files can't be read."""
    again = f"`dvc exp run --queue -S prepare.fold={number}` and `dvc exp run --run-all`"
    revision = Revision(run.revision, f"run the experiment of prepare.fold {number} again with {again}")
    selected = revision.json(SELECTED / "selected.json")
    rows = revision.table(PREDICTIONS / "test.csv")
    log_odds = np.array([float(row["model_log_odds"]) for row in rows])
    labels = [example.label for example in revision.examples(PROCESSED / "valid.jsonl")]
    # As the cheap systems' scores are: the record's calibration is that of select.system, by select.calibration.
    scores_of_valid = np.array([float(row["log_odds"]) for row in revision.table(SELECTED / VALID_FILE)])
    calibrated = calibrated_by(labels, scores_of_valid, log_odds)
    pairs = zip(log_odds.tolist(), calibrated.tolist(), strict=True)
    chosen: dict[str, float] = {
        key: selected[key] for key in ("step", "temperature", "offset", "threshold") if key in selected
    }
    return Fold(
        test=revision.examples(PROCESSED / "test.jsonl"),
        scores=dict(zip((row["source"] for row in rows), pairs, strict=True)),
        chosen=chosen,
        environment=run.metrics["environment"],
        date=date_of(run),
    )


def date_of(run: Run) -> str:
    """The day of an experiment, YYYY-MM-DD."""
    shown = ["git", "show", "--no-patch", "--format=%cs", run.revision]
    return subprocess.run(shown, capture_output=True, text=True, check=True).stdout.strip()


def require_rows(pool: list[Example], scored: list[Example], command: str = "make folds") -> None:
    """Raises UserError unless each row of the pool was scored with the same text, label and fold.

    command: what scores them, for the message.
    """
    found = {example.source: (example.input, example.label, example.fold) for example in scored}
    other = [e.source for e in pool if found.get(e.source) != (e.input, e.label, e.fold)]
    if other:
        raise UserError(
            f"{len(other)} of {len(pool)} rows of data/processed, the first {other[0]}, are not in the experiments, or "
            f"with another text, label or fold; expected the same rows: run `{command}` after `dvc repro prepare`. "
            "prepare.balance draws other rows in each fold, so it must not hold valid or test"
        )
