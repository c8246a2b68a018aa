"""Labels that may be wrong: listed for a person to look at, never dropped.

Three reasons, the surest first: a text with both labels; a similar text with the other label; and confident learning
(Northcutt et al. 2021, doi:10.1613/jair.1.12125) on the out-of-fold probabilities of the baseline. There, a label is
suspicious if the probability of the other class is at least the mean probability of that class among the rows that have
it as their label, and the row's own class has no such claim, or a weaker one.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from stages.artifacts import write_csv
from stages.errors import UserError
from stages.out_of_fold import read_scores
from stages.params import Prepare
from stages.paths import BASELINE, PROCESSED, RUNS
from stages.prepare.describe import SPLITS
from stages.prepare.leaks import find_similar_rows
from stages.text.example import Example, read_examples

REASONS = ("conflict", "similar", "scores")
SUSPICIOUS_COLUMNS = ["set", "source", "label", "reason", "other_source", "probability", "doubt", "input"]


@dataclass(frozen=True)
class Suspicious:
    """A row of runs/suspicious.csv.

    other_source: a row with the other label and the same or a similar text. probability: of fraud, out of fold, and
    doubt: that of the other label minus that of its own; None without out-of-fold scores.
    """

    set: str
    source: str
    label: bool
    reason: str
    other_source: str
    probability: float | None
    doubt: float | None
    input: str


def list_suspicious(params: Prepare) -> None:
    """Writes and counts the suspicious rows of data/processed. Raises UserError where the stage has not run."""
    files = {name: PROCESSED / f"{name}.jsonl" for name in SPLITS}
    missing = [file for file in files.values() if not file.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]} is missing; expected the rows that stage prepare writes: run `dvc repro prepare`"
        )
    scores = BASELINE / "folds.csv"
    has_scores = scores.is_file()  # data without folds has none
    found = find_suspicious(
        {name: read_examples(file) for name, file in files.items()}, scores if has_scores else None, params
    )
    write_csv(RUNS / "suspicious.csv", map(vars, found), SUSPICIOUS_COLUMNS)
    print_suspicious(found, has_scores, RUNS / "suspicious.csv")


def find_suspicious(splits: Mapping[str, list[Example]], scores: Path | None, params: Prepare) -> list[Suspicious]:
    """The rows whose label may be wrong, the surest first.

    Args:
        splits: rows by the name of their set.
        scores: the baseline's out-of-fold scores of these rows; None if there are none.
        params: what counts as similar.
    """
    rows = [(name, example) for name, examples in splits.items() for example in examples]
    examples = [example for _, example in rows]
    labels = np.array([example.label for example in examples], dtype=bool)
    p = expit(read_scores(scores, [example.source for example in examples])) if scores else None
    by_scores = confident(labels, p) if p is not None else np.zeros(len(rows), dtype=bool)
    same, near = other_labels(examples, params)
    found = []
    for row, (name, example) in enumerate(rows):
        reason = "conflict" if row in same else "similar" if row in near else "scores" if by_scores[row] else ""
        if reason:
            other = same.get(row, near.get(row))
            probability = None if p is None else round(float(p[row]), 4)
            doubt = None if p is None else round(float((1 - 2 * p[row]) * (1 if labels[row] else -1)), 4)
            source = "" if other is None else examples[other].source
            found.append(
                Suspicious(name, example.source, example.label, reason, source, probability, doubt, example.input)
            )
    return sorted(found, key=lambda row: (REASONS.index(row.reason), -(row.doubt or 0)))


def confident(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Whether confident learning counts a row to the other class, bool of shape (n_rows,).

    labels: bool of shape (n_rows,). p: probability of fraud, float of shape (n_rows,), out of fold.
    """
    if labels.all() or not labels.any():
        return np.zeros(len(labels), dtype=bool)
    fraud, legitimate = p >= p[labels].mean(), 1 - p >= 1 - p[~labels].mean()
    own, other = np.where(labels, fraud, legitimate), np.where(labels, legitimate, fraud)
    of_other = np.where(labels, 1 - p, p)
    return other & (~own | (of_other > 0.5))


def other_labels(examples: list[Example], params: Prepare) -> tuple[dict[int, int], dict[int, int]]:
    """For each row whose text has the other label elsewhere, a row that has it: of the same text, of a similar one.

    A contained text is no sign of a wrong label: a long text may quote a harmless one. So only near duplicates count.
    """
    similar = find_similar_rows(examples, params)
    rows_of: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for row, (text, example) in enumerate(zip(similar.text.tolist(), examples, strict=True)):
        rows_of[text, example.label].append(row)
    same: dict[int, int] = {}
    near: dict[int, int] = {}
    for (text, label), rows in rows_of.items():
        if others := rows_of.get((text, not label)):
            same |= dict.fromkeys(rows, others[0])
    alike = similar.jaccard >= params.near_duplicate
    pairs = list(zip(similar.one[alike].tolist(), similar.other[alike].tolist(), strict=True))
    for one, other in pairs + [(other, one) for one, other in pairs]:
        for label in (False, True):
            rows, others = rows_of.get((one, label), []), rows_of.get((other, not label), [])
            if others:
                near |= dict.fromkeys(rows, others[0])
    return same, near


def print_suspicious(found: list[Suspicious], has_scores: bool, path: Path) -> None:
    """Prints how many labels may be wrong. has_scores: whether there are out-of-fold scores."""
    counts = [sum(row.reason == reason for row in found) for reason in REASONS]
    by_scores = f"{counts[2]} by out-of-fold scores" if has_scores else "no out-of-fold scores"
    print(
        f"prepare: {len(found)} labels may be wrong ({counts[0]} rows of texts with both labels, {counts[1]} near-"
        f"duplicates with the other, {by_scores}), listed in {path}"
    )
