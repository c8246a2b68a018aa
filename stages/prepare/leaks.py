"""Rows of valid, test and further sets that a model has seen in training, and texts with two labels."""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from stages.params import Prepare
from stages.prepare.similar import SimilarPairs, find_similar
from stages.text.example import Example

KINDS = ("verbatim", "near", "contained", "case")  # the strongest first; case: the same group, in a user's own splits
COLUMNS = ["set", "source", "kind", "other_set", "other_source", "jaccard", "containment"]
Sets = dict[str, list[Example]]
Match = tuple[int, str, int, float, float]  # row, kind, row of the other set, Jaccard index, containment


@dataclass(frozen=True)
class Leak:
    """A row, the most similar row of another set, and how they match. The columns of data/processed/leaks.csv."""

    set: str
    source: str
    kind: str
    other_set: str
    other_source: str
    jaccard: float
    containment: float


def find_similar_rows(examples: list[Example], params: Prepare) -> SimilarPairs:
    texts = [example.input for example in examples]
    return find_similar(texts, params.near_duplicate, params.containment, params.contained_characters)


def unit_numbers(examples: list[Example], similar: SimilarPairs) -> list[int]:
    """The unit of each row, n_rows numbers: equal for rows that a chain of equal groups and similar texts connects."""
    groups: dict[str, int] = {}
    rows = len(examples)
    texts = int(similar.text.max(initial=-1)) + 1
    grouped = [(row, groups.setdefault(e.group, len(groups))) for row, e in enumerate(examples) if e.group]
    row, group = np.array(grouped, dtype=np.int64).reshape(-1, 2).T
    start = np.concatenate([np.arange(rows), row, rows + similar.one])
    end = np.concatenate([rows + similar.text, rows + texts + group, rows + similar.other])
    size = rows + texts + len(groups)
    edges = coo_matrix((np.ones(len(start)), (start, end)), shape=(size, size))
    return connected_components(edges, directed=False)[1][:rows].tolist()


def find_leaks(sets: Sets, params: Prepare) -> tuple[Sets, list[Leak]]:
    """Marks each row with its unit and with how it leaks. Returns the sets, and a Leak per row, kind and other set.

    valid is compared with train, test and further sets with train and valid. A row can leak in several ways, and its
    mark is the strongest. Containment counts in both directions. Units are found in each set by itself, because the
    rows of one set don't change how many independent units another set has.
    """
    names = list(sets)
    examples = [example for name in names for example in sets[name]]
    similar = find_similar_rows(examples, params)
    set_of = np.repeat(np.arange(len(names)), [len(sets[name]) for name in names])
    leaks: list[Leak] = []
    marks = [""] * len(examples)
    for number, name in enumerate(names):
        for other in range(names.index("train"), min(number, names.index("valid") + 1)):
            found = leaks_between(similar, set_of == number, set_of == other, params)
            if name in ("valid", "test"):  # the groups of another file may have the same names by chance
                found += shared_groups(examples, set_of == number, set_of == other)
            for row, kind, match, jaccard, containment in found:
                source, other_source = examples[row].source, examples[match].source
                leaks.append(Leak(name, source, kind, names[other], other_source, jaccard, containment))
                marks[row] = min(filter(None, (marks[row], kind)), key=KINDS.index)
    units = units_of_sets(sets, similar, set_of)
    marked = [replace(e, unit=u, leak=m) for e, u, m in zip(examples, units, marks, strict=True)]
    return {name: [e for e, s in zip(marked, set_of, strict=True) if s == n] for n, name in enumerate(names)}, leaks


def units_of_sets(sets: Sets, similar: SimilarPairs, set_of: np.ndarray) -> list[int]:
    """The unit of each row of all sets, n_rows numbers; no unit spans two sets. set_of: int of shape (n_rows,)."""
    units: list[int] = []
    for number, examples in enumerate(sets.values()):
        first = max(units, default=-1) + 1
        units += [first + unit for unit in unit_numbers(examples, similar.of(set_of == number))]
    return units


def leaks_between(similar: SimilarPairs, here: np.ndarray, there: np.ndarray, params: Prepare) -> list[Match]:
    """The best match of each kind for each row of a set in another set.

    Args:
        similar: the similar pairs among all rows.
        here: bool of shape (n_rows,), the rows that may leak.
        there: bool of shape (n_rows,), the rows that they are compared with.
        params: the bounds of `near` and `contained`.
    """
    first_there = {}  # text to row
    for row in np.flatnonzero(there)[::-1]:
        first_there[similar.text[row]] = int(row)
    best: dict[str, dict[int, tuple]] = {"near": {}, "contained": {}}  # kind, text here: (similarity, row there, …)
    for one, other, containment, jaccard in zip(
        *(column.tolist() for column in (similar.one, similar.other, similar.containment, similar.jaccard)), strict=True
    ):
        for text, match in ((one, other), (other, one)):
            if match not in first_there:
                continue
            if jaccard >= params.near_duplicate:
                candidate = (jaccard, first_there[match], jaccard, containment)
                best["near"][text] = max(best["near"].get(text, candidate), candidate)
            if containment >= params.containment:
                candidate = (containment, first_there[match], jaccard, containment)
                best["contained"][text] = max(best["contained"].get(text, candidate), candidate)
    found: list[Match] = []
    for row in np.flatnonzero(here).tolist():
        text = int(similar.text[row])
        if text in first_there:
            found.append((row, "verbatim", first_there[text], 1.0, 1.0))
        found += [(row, kind, *best[kind][text][1:]) for kind in best if text in best[kind]]
    return found


def shared_groups(examples: list[Example], here: np.ndarray, there: np.ndarray) -> list[Match]:
    """The rows of one set whose group appears in another set. here, there: bool of shape (n_rows,)."""
    rows_there = {examples[row].group: row for row in np.flatnonzero(there).tolist() if examples[row].group}
    groups_here = ((row, examples[row].group) for row in np.flatnonzero(here).tolist())
    return [(row, "case", rows_there[group], 0.0, 0.0) for row, group in groups_here if group in rows_there]


def have_both_labels(examples: list[Example], similar: SimilarPairs) -> np.ndarray:
    """Bool of shape (n_rows,): whether the row's text appears with both labels."""
    labels: dict[int, set[bool]] = defaultdict(set)
    for text, example in zip(similar.text.tolist(), examples, strict=True):
        labels[text].add(example.label)
    return np.array([len(labels[text]) > 1 for text in similar.text.tolist()], dtype=bool)
