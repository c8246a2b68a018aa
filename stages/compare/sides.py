"""What is compared of a revision: the model's predictions of test, the rows of all splits, params and headline."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.classifier.trained import RECORD_FILE, VALID_FILE, TrainedClassifier
from stages.errors import UserError
from stages.evaluate.choices import System, Valid, choose_on_valid
from stages.evaluate.predictors import Predictions, scored
from stages.params import PARAMS_FILE
from stages.paths import METRICS, PREDICTIONS, PROCESSED, SELECTED
from stages.revisions import Revision
from stages.text.example import Example

SPLITS = ("train", "valid", "test")
ADVICE = (
    "expected the outputs of a finished run. Fetch them with `dvc fetch --all-commits` if a remote has them, else "
    "check the revision out in a folder of its own, run `make repro` there, and name the folder"
)


@dataclass(frozen=True)
class Side:
    """One of two revisions.

    Attributes:
        name: as the user calls it.
        rows: of each split.
        predictions: of the model on test, with the choices on valid.
        params: all of params.yaml.
        figures: metrics/evaluate.json.
    """

    name: str
    rows: dict[str, list[Example]]
    predictions: Predictions
    params: dict[str, Any]
    figures: dict[str, Any]


def read_side(name: str, samples: int) -> Side:
    """Reads a revision. Raises UserError if a file can't be read, or if files belong to different runs.

    Args:
        name: of the revision, or the path of a folder.
        samples: number of resamples of valid.
    """
    revision = Revision(name, ADVICE)
    rows = {split: revision.examples(PROCESSED / f"{split}.jsonl") for split in SPLITS}
    table = revision.table(PREDICTIONS / "test.csv")
    if [row["source"] for row in table] != [example.source for example in rows["test"]]:
        raise UserError(
            f"{PREDICTIONS / 'test.csv'} of {name} has other rows than {PROCESSED / 'test.jsonl'}; expected the same, "
            "in the same order: run `make repro` there"
        )
    if table[0]["model_log_odds"]:
        log_odds = np.array([float(row["model_log_odds"]) for row in table])
        predictions = scored(model_system(revision, rows["valid"], samples), log_odds)
        if not np.allclose(predictions.y_score, [float(row["model_score"]) for row in table], atol=1e-6):
            raise UserError(
                f"{PREDICTIONS / 'test.csv'} of {name} has other scores than the calibration in {SELECTED} gives them; "
                "expected the outputs of one run: run `make repro` there"
            )
    else:  # written answers
        predictions = Predictions(np.array([float(row["model_score"] or "nan") for row in table]), 0.5)
    figures = revision.json(METRICS / "evaluate.json")
    return Side(name, rows, predictions, revision.yaml(PARAMS_FILE), figures)


def model_system(revision: Revision, valid: list[Example], samples: int) -> System:
    """The model's scores of valid and the choices on them, as stage evaluate had them.

    Args:
        revision: to read from.
        valid: its n_rows rows.
        samples: number of resamples.
    """
    known = {field.name for field in dataclasses.fields(TrainedClassifier)}
    record = {key: value for key, value in revision.json(SELECTED / RECORD_FILE).items() if key in known}
    selected = TrainedClassifier(**record)
    log_odds = np.array([float(row["log_odds"]) for row in revision.table(SELECTED / VALID_FILE)])
    if len(log_odds) != len(valid):
        raise UserError(
            f"{SELECTED / VALID_FILE} of {revision} has {len(log_odds)} rows, and {PROCESSED / 'valid.jsonl'} "
            f"{len(valid)}; expected as many: run `make repro` there"
        )
    choices = Valid.of(valid, selected.threshold_rule, selected.calibration_method, samples)
    if selected.system != "model":
        return choose_on_valid(choices, log_odds)
    return System(choices, log_odds, selected.calibration, selected.threshold)
