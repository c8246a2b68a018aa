"""The model's out-of-fold scores, and a record of what they were made from."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts import read_csv, read_json, write_json
from stages.errors import UserError
from stages.out_of_fold import Score, write_scores
from stages.params import Params
from stages.text.example import Example

SCORES_FILE, RECORD_FILE = "model.csv", "model.json"
NO_RESULT = ("logging_steps", "save_steps", "save_total_limit")  # keys of `train` that change no score
# Keys of `prepare` that change no fold.
OF_ONE_RUN = ("fold", "train_rows", "shortcut_warning", "max_rejected_fraction")


@dataclass(frozen=True)
class Collected:
    """scores: by source. record: `data`, a hash of the rows; `dataset`; `params`; `environment`; `date`; `folds`."""

    scores: dict[str, float]
    record: dict[str, Any]

    def calibrated(self, sources: Sequence[str]) -> np.ndarray:
        """The calibrated log-odds of rows, shape (n_rows,)."""
        return np.array([self.scores[source] for source in sources])


def data_hash(pool: Sequence[Example]) -> str:
    """A hash of the rows: source, text, label and fold. Their order doesn't count."""
    rows = sorted([e.source, e.input, e.label, e.fold] for e in pool)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def recipe(chosen: Params) -> dict[str, Any]:
    """The params that the model's scores depend on, by dotted key."""
    sections: dict[str, Mapping[str, Any]] = {
        f"methods.{chosen.method_name}": dataclasses.asdict(chosen.method),
        f"models.{chosen.model_name}": dataclasses.asdict(chosen.model),
        "prepare": {key: value for key, value in dataclasses.asdict(chosen.prepare).items() if key not in OF_ONE_RUN},
        "prompt": dataclasses.asdict(chosen.prompt),
        "train": {key: value for key, value in dataclasses.asdict(chosen.train).items() if key not in NO_RESULT},
        "select": dataclasses.asdict(chosen.select),
    }
    return {
        f"{section}.{key}": value if isinstance(value, int | float | str | None) else json.dumps(value)
        for section, values in sections.items()
        for key, value in values.items()
    }


def changed_params(collected: Collected, chosen: Params) -> list[str]:
    """The keys of params.yaml on which the scores depend and that have another value now, or are in one alone."""
    then, now = collected.record["params"], recipe(chosen)
    return sorted(key for key in then.keys() | now.keys() if then.get(key, ...) != now.get(key, ...))


def write_collected(folder: Path, scores: Mapping[str, Score], record: Mapping[str, Any]) -> None:
    """Writes scores by source, and the record; the record last, so that a torn pair is never read."""
    (folder / RECORD_FILE).unlink(missing_ok=True)
    write_scores(folder / SCORES_FILE, scores.keys(), scores.values())
    write_json(folder / RECORD_FILE, record)


def read_collected(folder: Path) -> Collected | None:
    """The scores in a folder, None if there are none. Raises UserError if the files are damaged."""
    if not (folder / RECORD_FILE).is_file() or not (folder / SCORES_FILE).is_file():
        return None
    try:
        scores = {row["source"]: float(row["calibrated"]) for row in read_csv(folder / SCORES_FILE)}
        record = read_json(folder / RECORD_FILE)
        _ = {key: record[key] for key in ("data", "dataset", "params", "environment", "date")}
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: {SCORES_FILE} and {RECORD_FILE} are damaged ({error!r}); expected what `make folds` wrote: "
            "run it again, or delete both"
        ) from None
    return Collected(scores, record)
