"""The baseline: TF-IDF and a logistic regression."""

import numpy as np
from sklearn.metrics import average_precision_score

from stages.prepare.baseline import fit_baseline, log_odds
from stages.text.example import Example


def test_the_baseline_is_tuned_over_units_and_beats_a_coin(sample_texts):
    rows = [
        Example(f"{'转账' if n % 2 else '天气'}{text}", n % 2 == 1, unit=n // 2) for n, text in enumerate(sample_texts)
    ]
    baseline, tuned = fit_baseline(rows[:400], 0)
    assert tuned["average_precision_cv"] > 0.9
    labels = np.array([row.label for row in rows[400:]])
    assert average_precision_score(labels, log_odds(baseline, rows[400:])) > 0.95
