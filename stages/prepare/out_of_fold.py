"""Out-of-fold scores of the baseline: each row of a pool is scored by a baseline that was fitted without its fold."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from stages.artifacts import write_csv
from stages.data.lines import DataError
from stages.out_of_fold import FIFTHS, SPLIT_COLUMNS, Score, calibrated_by, write_scores
from stages.params import Prepare
from stages.prepare.baseline import PARALLEL_FROM, fit_baseline, log_odds
from stages.prepare.deal import renumbered
from stages.prepare.split import Splits, require_both_classes, split_by_fold
from stages.text.example import Example


def write_out_of_fold(splits_path: Path, path: Path, pool: list[Example], params: Prepare) -> str:
    """Scores the rows of a pool out of fold. Returns the reason why there are none, empty if there are.

    Each fold is test once, as in a run with prepare.fold set to it: valid is dealt from the other folds, the baseline
    is fitted on their rest, and its scores are calibrated on valid.

    Args:
        splits_path: the file for the split of each row in each fold's run, for other systems.
        path: the file for the scores.
        pool: its rows, with their folds.
        params: the section `prepare` of params.yaml.
    """
    if params.fold is not None:
        return f"this run holds out fold {params.fold} alone"
    if params.train_rows is not None:
        return f"the systems of this run learn from prepare.train_rows {params.train_rows} alone"
    if not pool or min(example.fold for example in pool) < 0:
        return "splits of your own and small pools have no folds"
    units = renumbered(np.array([example.unit for example in pool]))
    pool = [replace(example, unit=int(unit)) for example, unit in zip(pool, units, strict=True)]
    names: dict[str, dict[str, str]] = {example.source: {"source": example.source} for example in pool}
    folds: list[Splits] = []
    try:
        for fold in range(FIFTHS):
            folds.append(split_by_fold(pool, units, fold, params))
            require_both_classes({name: folds[fold][name] for name in ("train", "valid")})
    except DataError as error:
        return f"fold {fold}: {error}"
    for fold, splits in enumerate(folds):
        for name, rows in splits.items():
            for example in rows:
                names[example.source][f"fold_{fold}"] = name
    jobs = -1 if len(pool) >= PARALLEL_FROM else 1
    of_folds = Parallel(n_jobs=jobs)(delayed(score_fold)(splits, params.seed) for splits in folds)
    scores: dict[str, Score] = {}
    for splits, of_fold in zip(folds, of_folds, strict=True):
        scores |= zip((example.source for example in splits["test"]), of_fold, strict=True)
    sources = [example.source for example in pool]
    write_scores(path, sources, (scores[source] for source in sources))
    write_csv(splits_path, names.values(), SPLIT_COLUMNS)
    return ""


def score_fold(splits: Splits, seed: int) -> list[Score]:
    """Log-odds of each row of test: as scored, and calibrated on valid."""
    baseline = fit_baseline(splits["train"], seed, jobs=1).baseline
    labels = [example.label for example in splits["valid"]]
    raw = log_odds(baseline, splits["test"])
    calibrated = calibrated_by(labels, log_odds(baseline, splits["valid"]), raw)
    return list(zip(raw.tolist(), calibrated.tolist(), strict=True))


def in_order(texts: Mapping[str, list[Example]], sets: Mapping[str, list[Example]]) -> list[Example]:
    """The rows of the splits in the order of their pool; none without a pool."""
    kept = {example.source: example for name in ("train", "valid", "test") for example in sets[name]}
    return [kept[example.source] for example in texts.get("pool", []) if example.source in kept]
