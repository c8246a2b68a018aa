"""What each threshold means on valid: the figures behind the page's slider.

They come from the folder of the classifier, if it holds FIGURES_FILE, as an export does. For models/selected they are
computed from the scores of valid that the stages left, and from the labels in data/processed/valid.jsonl.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from stages.artifacts import read_json
from stages.classifier.trained import RECORD_FILE, read_selected
from stages.classifier.valid_scores import valid_with_scores
from stages.errors import UserError

FIGURES_FILE = "operating_points.json"
MOST_POINTS = 400


def operating_points(folder: Path) -> dict[str, Any]:
    """The figures of a classifier's folder, as `curve` has them. Without any, the reason: {"missing": sentence}."""
    try:
        if (folder / FIGURES_FILE).is_file():
            return read_json(folder / FIGURES_FILE)
        if not (folder / RECORD_FILE).is_file():
            return {"missing": f"{folder} holds no {FIGURES_FILE}; export it again"}
        return points_of_selected(folder)
    except (OSError, KeyError, TypeError, ValueError, UserError) as error:
        return {"missing": f"no figures of valid: {error}"}


def points_of_selected(folder: Path) -> dict[str, Any]:
    """The figures of models/selected. Raises UserError if valid is not the one that the threshold was chosen on."""
    selected = read_selected(folder)
    examples, log_odds = valid_with_scores(folder, selected)
    labels = np.array([example.label for example in examples])
    return curve(labels, expit(log_odds), selected.promised["fraud_fraction"])


def curve(labels: np.ndarray, probability: np.ndarray, fraud_fraction: float) -> dict[str, Any]:
    """Recall and rate of false alarms by threshold. With a share of fraud, precision and alarms follow from them.

    Args:
        labels: bool of shape (n,).
        probability: of fraud, float of shape (n,).
        fraud_fraction: the share of fraud that the threshold was chosen for.

    Returns counts of both classes, the share, and lists of equal length: threshold (rising), recall and
    false_alarm_rate (of harmless texts). A text is flagged from the threshold on, so values between two thresholds
    have the figures of the upper one.
    """
    found = np.unique(probability)
    if len(found) > MOST_POINTS:
        found = np.unique(np.quantile(probability, np.linspace(0, 1, MOST_POINTS), method="nearest"))
    positive, negative = np.sort(probability[labels]), np.sort(probability[~labels])
    recall = 1 - np.searchsorted(positive, found) / max(len(positive), 1)
    alarms = 1 - np.searchsorted(negative, found) / max(len(negative), 1)
    return {
        "fraud": len(positive),
        "harmless": len(negative),
        "fraud_fraction": fraud_fraction,
        "threshold": found.tolist(),
        "recall": recall.tolist(),
        "false_alarm_rate": alarms.tolist(),
    }


def write_points(folder: Path, points: dict[str, Any]) -> None:
    """Writes figures beside an exported classifier."""
    (folder / FIGURES_FILE).write_text(json.dumps(points), encoding="utf-8")
