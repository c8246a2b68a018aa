"""Out-of-fold scores of the probe: each row of a pool is scored by a probe that was fitted without its fold."""

import numpy as np

from stages.artifacts import read_csv
from stages.out_of_fold import FIFTHS, Score, calibrated_by
from stages.paths import FOLD_SPLITS
from stages.probe.fit import fit_probe
from stages.text.example import Example


def score_out_of_fold(pool: list[Example], states: np.ndarray, layers: list[int], seed: int) -> list[Score]:
    """Log-odds of each row, as scored and calibrated, by the splits that stage prepare wrote for each fold's run.

    Args:
        pool: n_rows rows.
        states: their mean hidden states, float32 of shape (n_rows, L, H).
        layers: numbers of the L layers.
        seed: of the folds on which layer and C are chosen.
    """
    labels, units = np.array([row.label for row in pool]), np.array([row.unit for row in pool])
    splits = {row["source"]: row for row in read_csv(FOLD_SPLITS)}
    scores = np.full((len(pool), 2), np.nan)
    for fold in range(FIFTHS):
        split = np.array([splits[row.source][f"fold_{fold}"] for row in pool])
        train, valid, test = (np.flatnonzero(split == name) for name in ("train", "valid", "test"))
        probe = fit_probe(states[train], layers, labels[train], units[train], seed).probe
        place = layers.index(probe.layer)
        of_valid, of_test = (probe.log_odds(states[rows, place]) for rows in (valid, test))
        scores[test] = np.column_stack([of_test, calibrated_by(labels[valid], of_valid, of_test)])
    return [(float(raw), float(calibrated)) for raw, calibrated in scores]
