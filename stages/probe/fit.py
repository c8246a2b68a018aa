"""Chooses the layer and the regularization of the probe by folds of train that keep units whole, and fits it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from stages.classifier.probe import Probe
from stages.cross_validation import Folds, grouped_folds, search_rows

GRID = (1e-4, 1e-3, 1e-2, 1e-1)  # C of the logistic regression
DEFAULT_C = 1e-2  # on which the layer is chosen; with too few units to choose, that of the middle layer


@dataclass(frozen=True)
class Choice:
    """A layer, by its place among those that are kept, and C."""

    place: int
    c: float


class FittedProbe(NamedTuple):
    """The probe; what was chosen, for models/probe.json; out-of-fold log-odds of train, float of shape (n_rows,)."""

    probe: Probe
    chosen: dict[str, Any]
    out_of_fold: np.ndarray


def fit_probe(states: np.ndarray, layers: list[int], labels: np.ndarray, units: np.ndarray, seed: int) -> FittedProbe:
    """The probe with the highest average precision of out-of-fold scores, fitted on all rows.

    Args:
        states: mean hidden states of train, float32 of shape (n_rows, L, H).
        layers: numbers of the L layers.
        labels: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        seed: of the folds, and of the rows that the search sees.

    With too few units for folds nothing is chosen, and the out-of-fold log-odds are NaN.
    """
    tried = search(states, labels, units, seed)
    choice = max(tried, key=tried.__getitem__, default=Choice((len(layers) - 1) // 2, DEFAULT_C))  # the first of equals
    own = states[:, choice.place]
    folds = grouped_folds(labels, units, seed)
    out_of_fold = np.full(len(labels), np.nan)
    for fitted, scored in folds:
        ((weight, intercept),) = fit_path(own[fitted], labels[fitted], (choice.c,))
        out_of_fold[scored] = own[scored].astype(np.float64) @ weight + intercept
    ((weight, intercept),) = fit_path(own, labels, (choice.c,))
    best = {
        str(layer): max((value for each, value in tried.items() if each.place == place), default=None)
        for place, layer in enumerate(layers)
    }
    chosen = {
        "layer": layers[choice.place],
        "C": choice.c,
        "average_precision_cv": tried.get(choice),
        "average_precision_cv_by_layer": best,
        "at_edge_of_grid": choice.c in (GRID[0], GRID[-1]),
    }
    return FittedProbe(Probe(layers[choice.place], weight, intercept), chosen, out_of_fold)


def search(states: np.ndarray, labels: np.ndarray, units: np.ndarray, seed: int) -> dict[Choice, float]:
    """Average precision of the out-of-fold scores of each candidate. Empty with too few units for folds.

    All layers are tried at DEFAULT_C, and all of GRID at the best layer.

    Args:
        states: mean hidden states, float32 of shape (n_rows, L, H).
        labels: bool of shape (n_rows,).
        units: int of shape (n_rows,), the unit of each row.
        seed: of the folds, and of the rows that the search sees.
    """
    rows = search_rows(labels, units, seed)
    folds = grouped_folds(labels[rows], units[rows], seed)
    if not folds:
        return {}

    def score(place: int, grid: tuple[float, ...]) -> dict[Choice, float]:
        of_layer = out_of_fold_scores(states[rows, place], labels[rows], folds, grid)
        return {
            Choice(place, c): float(average_precision_score(labels[rows], scores))
            for c, scores in zip(grid, of_layer, strict=True)
        }

    tried: dict[Choice, float] = {}
    for place in range(states.shape[1]):
        tried |= score(place, (DEFAULT_C,))
    best = max(tried, key=tried.__getitem__)
    return tried | score(best.place, GRID)


def out_of_fold_scores(states: np.ndarray, labels: np.ndarray, folds: Folds, grid: tuple[float, ...]) -> np.ndarray:
    """Scores (len(grid), n_rows) of each row by probes that have seen no row of its fold.

    Args:
        states: mean hidden states of one layer, shape (n_rows, H).
        labels: bool of shape (n_rows,).
        folds: of the rows.
        grid: C of each probe, rising.
    """
    found = np.zeros((len(grid), len(labels)))
    for fitted, scored in folds:
        for place, (weight, intercept) in enumerate(fit_path(states[fitted], labels[fitted], grid)):
            found[place, scored] = states[scored] @ weight + intercept
    return found


def fit_path(states: np.ndarray, labels: np.ndarray, grid: tuple[float, ...]) -> list[tuple[np.ndarray, float]]:
    """Weights (H,) and intercept of the logistic regression on standardized states, for each C, rising.

    Each starts from the one before. The standardization is part of weights and intercept.
    """
    states = states.astype(np.float64)
    mean, scale = states.mean(axis=0), states.std(axis=0)
    scale[scale == 0] = 1.0
    standardized = (states - mean) / scale
    model = LogisticRegression(max_iter=2000, warm_start=True)
    found = []
    for c in grid:
        # A fit is thousands of small products. Between them, several threads wait longer for each other than they work.
        with threadpool_limits(1):
            model.set_params(C=c).fit(standardized, labels)
        weight = model.coef_[0] / scale
        found.append((weight, float(model.intercept_[0] - weight @ mean)))
    return found
