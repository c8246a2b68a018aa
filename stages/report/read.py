"""What the report reads: the figures, tables and predictions that other stages wrote."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages import params
from stages.artifacts import read_csv, read_json
from stages.errors import UserError
from stages.params import Params
from stages.paths import METRICS, PLOTS, PREDICTIONS, PROCESSED, SELECTED, TRAIN_FIGURES
from stages.report.words import SYSTEMS
from stages.text.example import Example, read_examples

FIGURES = {name: METRICS / f"{name}.json" for name in ("evaluate", "data", "select", "folds")} | {
    "train": TRAIN_FIGURES
}
TABLES = ("leaks", "lengths", "shortcuts", "slices")
HASHED = (
    *(PROCESSED / f"{name}.jsonl" for name in ("train", "valid", "test")),
    SELECTED / "adapter_model.safetensors",
    SELECTED / "selected.json",
)
TRAINED = ("model", "combined")
CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Run:
    """A run's figures.

    Attributes:
        params: params.yaml.
        evaluate, data, select, folds: the JSON files of metrics/. train: models/train.json.
        record: models/selected/selected.json.
        tables: CSV files of metrics/plots by name, as rows.
        reliability: mean probability and share of fraud by bin, by "model" and "model_before".
        test: the n_rows rows of test.
        rows: how many texts train, valid and test have.
        files: how many texts of these three come from which file.
        predictions: a row of data/predictions/test.csv for each of them.
        errors: rows of data/predictions/errors.csv.
        hashes: sha256 of data and model by path.
    """

    params: Params
    evaluate: dict[str, Any]
    data: dict[str, Any]
    select: dict[str, Any]
    train: dict[str, Any]
    folds: dict[str, Any]
    record: dict[str, Any]
    tables: dict[str, list[dict[str, str]]]
    reliability: dict[str, list[tuple[float, float]]]
    test: list[Example]
    rows: dict[str, int]
    files: dict[str, int]
    predictions: list[dict[str, str]]
    errors: list[dict[str, str]]
    hashes: dict[str, str]

    @property
    def used(self) -> str:
        """The system that predict uses; the model where evaluate could not judge it, as with written answers."""
        system = self.select["system"]
        return system if system in self.evaluate else "model"

    @property
    def compared(self) -> str:
        """The system with training that the verdict is about."""
        return self.used if self.used in TRAINED else "model"

    @property
    def best_cheap(self) -> str:
        return self.evaluate.get("best_cheap", {}).get("name", "baseline")

    @property
    def systems(self) -> list[str]:
        """From the cheapest to the dearest."""
        return systems_of(self.evaluate)

    @property
    def labels(self) -> np.ndarray:
        """bool of shape (n_rows,)."""
        return np.array([row.label for row in self.test], dtype=bool)

    def flagged(self, system: str) -> np.ndarray:
        """What a system calls fraud, bool of shape (n_rows,)."""
        return np.array([row[f"{system}_pred"] == "1" for row in self.predictions])

    def scores(self, system: str) -> np.ndarray | None:
        """Probabilities by a system, float of shape (n_rows,). None for written answers."""
        found = [row[f"{system}_score"] for row in self.predictions]
        if "" in found or self.evaluate[system].get("threshold") is None:
            return None
        return np.array([float(score) for score in found])


def systems_of(block: dict[str, Any]) -> list[str]:
    """The systems that a block of figures holds, from the cheapest to the dearest."""
    return [name for name in SYSTEMS if name in block and name != "always_fraud"]


def figure(block: dict[str, Any], name: str) -> float | None:
    """A system's figure. None where the set does not define it: evaluate writes 0 for a precision without alarms.

    On texts of one class, a precision says nothing.
    """
    if name == "precision" and not (block["tp"] + block["fn"] and block["fp"] + block["tn"]):
        return None
    needed = {"precision": ("tp", "fp"), "recall": ("tp", "fn"), "f1": ("tp", "fn")}
    if name in needed and not any(block[count] for count in needed[name]):
        return None
    return block.get(name)


def read_run() -> Run:
    """Reads a run. Raises UserError if a file is missing or damaged."""
    sets = {name: opened(PROCESSED / f"{name}.jsonl", read_examples) for name in ("train", "valid", "test")}
    origins = (row.source.rpartition(":")[0] for rows in sets.values() for row in rows)
    found = Run(
        params=params.load(),
        **{name: opened(path, read_figures) for name, path in FIGURES.items()},
        record=opened(SELECTED / "selected.json", read_figures),
        tables={name: opened(PLOTS / f"{name}.csv", read_csv) for name in TABLES},
        reliability={name: opened(PLOTS / f"reliability/{name}.csv", read_bins) for name in ("model", "model_before")},
        test=sets["test"],
        rows={name: len(rows) for name, rows in sets.items()},
        files=dict(sorted(Counter(origins).items(), key=lambda each: Path(each[0]).stem)),
        predictions=opened(PREDICTIONS / "test.csv", read_csv),
        errors=opened(PREDICTIONS / "errors.csv", read_csv),
        hashes={path.as_posix(): opened(path, sha256) for path in HASHED},
    )
    sources = [row["source"] for row in found.predictions]
    if sources != [row.source for row in found.test]:
        raise UserError(
            f"{PREDICTIONS / 'test.csv'} has {len(sources)} rows that are not the {len(found.test)} rows of "
            f"{PROCESSED / 'test.jsonl'}; expected one each, in order: run `dvc repro evaluate`"
        )
    return found


def opened(path: Path, read: Callable[[Path], Any]) -> Any:
    """What a file holds. Raises UserError if it is missing, or not what its stage writes."""
    try:
        return read(path)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); run `dvc repro report` first") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not as its stage writes it ({error}): run `dvc repro report`") from None


def read_figures(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"found a {type(found).__name__}, expected figures by name")
    return found


def read_bins(path: Path) -> list[tuple[float, float]]:
    return [(float(row["probability"]), float(row["fraud_fraction"])) for row in read_csv(path)]


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
