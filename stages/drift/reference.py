"""What new texts are compared with: the texts of train, and those of valid with labels and scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.classifier.shift import all_bigrams, measure
from stages.classifier.trained import TrainedClassifier, read_selected
from stages.classifier.valid_scores import valid_with_scores
from stages.drift.draws import different, first_rows
from stages.errors import UserError
from stages.paths import PROCESSED
from stages.text.example import Example, read_examples

MOST_TRAIN = 3000  # rows that the two-sample classifier reads; time grows with their cube
SEED = 0  # the same texts always get the same verdict


@dataclass(frozen=True, eq=False)
class Reference:
    """Texts of before, at the share of fraud that the threshold was chosen for.

    Attributes:
        train: n_train texts.
        train_units: their units, int of shape (n_train,).
        bigrams: of all texts of train, as stages/classifier/shift.py has them.
        values: of the n_valid texts of valid, by feature, float of shape (n_valid,).
        units: their units, int of shape (n_valid,).
        labels, log_odds, label_units: of all rows of valid, at the share of fraud that it has.
        selected: the record of the classifier.
    """

    train: list[str]
    train_units: np.ndarray
    bigrams: np.ndarray
    values: dict[str, np.ndarray]
    units: np.ndarray
    labels: np.ndarray
    log_odds: np.ndarray
    label_units: np.ndarray
    selected: TrainedClassifier


def read_reference(folder: Path) -> Reference:
    """Reads what the stages left. folder: models/selected. Raises UserError if something is missing."""
    selected = read_selected(folder)
    try:
        train = read_examples(PROCESSED / "train.jsonl")
        valid, log_odds = valid_with_scores(folder, selected)
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is missing; expected the files that the stages leave, to compare the texts with: run "
            "`dvc pull`, or `dvc repro`"
        ) from error
    return reference_of(train, valid, log_odds, selected)


def reference_of(
    train: list[Example], valid: list[Example], log_odds: np.ndarray, selected: TrainedClassifier
) -> Reference:
    """Puts a reference together.

    Args:
        train: the rows that the model was trained on.
        valid: the n rows that its threshold was chosen on.
        log_odds: their calibrated log-odds, float of shape (n,).
        selected: the record of the classifier.
    """
    rng = np.random.default_rng(SEED)
    share = selected.threshold_rule.fraud_fraction
    bigrams = all_bigrams(row.input for row in train)
    rows = kept(train, share, rng)
    rows = rows[first_rows(units_of([train[row] for row in rows]), MOST_TRAIN, rng)]
    some = [train[row] for row in rows]
    compared = kept(valid, share, rng)
    shown = [valid[row] for row in compared]
    return Reference(
        [row.input for row in some],
        units_of(some),
        bigrams,
        measure([row.input for row in shown], bigrams) | {"score": log_odds[compared]},
        units_of(shown),
        np.array([row.label for row in valid]),
        log_odds,
        units_of(valid),
        selected,
    )


def kept(rows: list[Example], share: float | None, rng: np.random.Generator) -> np.ndarray:
    """Row numbers, rising: each different text once, and of the too common class only so many as the share allows.

    Args:
        rows: texts with labels.
        share: of fraud; None is that of the rows.
        rng: draws the rows that stay.
    """
    found = different([row.input for row in rows])
    label = np.array([rows[row].label for row in found])
    fraud, harmless = int(label.sum()), int((~label).sum())
    if share is None or not fraud or not harmless:
        return found
    most = {True: round(harmless * share / (1 - share)), False: round(fraud * (1 - share) / share)}
    order = rng.permutation(len(found))
    chosen = [order[label[order] == value][: max(number, 1)] for value, number in most.items()]
    return found[np.sort(np.concatenate(chosen))]


def units_of(rows: Sequence[Example]) -> np.ndarray:
    return np.array([row.unit for row in rows])
