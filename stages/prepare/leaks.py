"""Rows of valid, test and further sets that a model has met in training, and texts with two labels."""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from stages.params import Prepare
from stages.prepare.similar import SimilarPairs, find_alike
from stages.text.example import Example

KINDS = ("verbatim", "near", "contained", "case")  # the strongest first; case: of one group, in splits of one's own
COLUMNS = ["set", "source", "kind", "other_set", "other_source", "jaccard", "containment"]
Sets = dict[str, list[Example]]


@dataclass(frozen=True)
class Leak:
    """A row, the most alike row of another set, and how: columns of data/processed/leaks.csv."""

    set: str
    source: str
    kind: str
    other_set: str
    other_source: str
    jaccard: float
    containment: float


def alike_rows(examples: list[Example], params: Prepare) -> SimilarPairs:
    texts = [example.input for example in examples]
    return find_alike(texts, params.near_duplicate, params.containment, params.contained_characters)


def unit_numbers(examples: list[Example], alike: SimilarPairs) -> list[int]:
    """A number a row, shape (n_rows,); equal for rows that a chain of equal groups and alike texts connects."""
    groups: dict[str, int] = {}
    rows = len(examples)
    texts = int(alike.text.max(initial=-1)) + 1
    grouped = [(row, groups.setdefault(e.group, len(groups))) for row, e in enumerate(examples) if e.group]
    row, group = np.array(grouped, dtype=np.int64).reshape(-1, 2).T
    start = np.concatenate([np.arange(rows), row, rows + alike.one])
    end = np.concatenate([rows + alike.text, rows + texts + group, rows + alike.other])
    size = rows + texts + len(groups)
    edges = coo_matrix((np.ones(len(start)), (start, end)), shape=(size, size))
    return connected_components(edges, directed=False)[1][:rows].tolist()


def find_leaks(sets: Sets, params: Prepare) -> tuple[Sets, list[Leak]]:
    """Marks each row with its unit and with how it leaks. Returns the sets, and a Leak a row, kind and other set.

    valid is compared with train; test and further sets with train and valid. A row can leak in several ways; its mark
    is the strongest. Containment is of either text in the other. Units are of each set by itself: what one set holds
    says nothing of how many independent units another has.
    """
    names = list(sets)
    examples = [example for name in names for example in sets[name]]
    alike = alike_rows(examples, params)
    of_set = np.repeat(np.arange(len(names)), [len(sets[name]) for name in names])
    units: list[int] = []
    for number, name in enumerate(names):
        first = max(units, default=-1) + 1
        units += [first + unit for unit in unit_numbers(sets[name], alike.of(of_set == number))]
    leaks: list[Leak] = []
    marks = [""] * len(examples)
    for number, name in enumerate(names):
        for other in range(names.index("train"), min(number, names.index("valid") + 1)):
            for row, kind, match, jaccard, containment in leaks_between(
                alike, of_set == number, of_set == other, params
            ):
                found = Leak(
                    name, examples[row].source, kind, names[other], examples[match].source, jaccard, containment
                )
                leaks.append(found)
                marks[row] = min(filter(None, (marks[row], kind)), key=KINDS.index)
            if name not in ("valid", "test"):  # the groups of another file may have the same names by chance
                continue
            cases = {e.group: e.source for e in sets[names[other]] if e.group}
            for row in np.flatnonzero(of_set == number).tolist():
                if examples[row].group in cases:
                    source = cases[examples[row].group]
                    leaks.append(Leak(name, examples[row].source, "case", names[other], source, 0.0, 0.0))
                    marks[row] = marks[row] or "case"
    marked = [replace(e, unit=u, leak=m) for e, u, m in zip(examples, units, marks, strict=True)]
    return {name: [e for e, s in zip(marked, of_set, strict=True) if s == n] for n, name in enumerate(names)}, leaks


def leaks_between(alike: SimilarPairs, here: np.ndarray, there: np.ndarray, params: Prepare) -> list[tuple]:
    """(row, kind, row there, Jaccard index, containment) of the rows `here` (a mask), the best match a kind."""
    first_there = {}  # text to row
    for row in np.flatnonzero(there)[::-1]:
        first_there[alike.text[row]] = int(row)
    best: dict[str, dict[int, tuple]] = {"near": {}, "contained": {}}  # kind, text here: (measure, row there, …)
    for one, other, containment, jaccard in zip(
        *(column.tolist() for column in (alike.one, alike.other, alike.containment, alike.jaccard)), strict=True
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
    found = []
    for row in np.flatnonzero(here).tolist():
        text = int(alike.text[row])
        if text in first_there:
            found.append((row, "verbatim", first_there[text], 1.0, 1.0))
        found += [(row, kind, *best[kind][text][1:]) for kind in best if text in best[kind]]
    return found


def conflicting(examples: list[Example], alike: SimilarPairs) -> np.ndarray:
    """Bool of shape (n_rows,): whether the row's text stands with both labels."""
    labels: dict[int, set[bool]] = defaultdict(set)
    for text, example in zip(alike.text.tolist(), examples, strict=True):
        labels[text].add(example.label)
    return np.array([len(labels[text]) > 1 for text in alike.text.tolist()], dtype=bool)
