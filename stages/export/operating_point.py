"""Calibration and threshold of an export whose scores are not the model's own, and what it is worth on test."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import expit

from stages.bands import BandRule, Bands, choose_bands
from stages.classifier.trained import TrainedClassifier
from stages.errors import UserError
from stages.evaluate.choices import NO_ALARM, System, Valid, choose_on_valid
from stages.evaluate.compare import compare_rows
from stages.evaluate.predictors import Predictions
from stages.metrics import Calibration
from stages.text.example import Example

KEPT = ("average_precision", "roc_auc", "f1", "precision", "recall", "false_alarms_per_1000", "brier", "log_loss")


def choose(examples: list[Example], raw: np.ndarray, selected: TrainedClassifier, samples: int) -> System:
    """The export's own calibration and threshold, by the rules of select.

    Args:
        examples: the n rows of valid.
        raw: the export's log-odds of them before slope and offset, float of shape (n,).
        selected: the record of the trained model.
        samples: number of resamples of valid, for the intervals on test.
    """
    labels = {example.label for example in examples}
    if len(labels) < 2:
        raise UserError(f"the {len(examples)} rows of valid have one label only; expected both: raise --rows")
    system = choose_on_valid(valid_of(examples, selected, samples), raw)
    if system.threshold == NO_ALARM:
        raise UserError(
            "no threshold keeps select.min_precision with the scores of this export on valid: export a kind with less "
            "loss, or choose another select.threshold"
        )
    return system


def choose_own_bands(
    examples: list[Example], raw: np.ndarray, system: System, selected: TrainedClassifier
) -> Bands | None:
    """The export's own bands, by the rule of select; None without bands.

    Args:
        examples: the n rows of valid.
        raw: the export's log-odds of them before slope and offset, float of shape (n,).
        system: its calibration and threshold.
        selected: the record of the trained model.
    """
    rule = BandRule.from_section(selected.select)
    if rule is None:
        return None
    y_true = np.array([example.label for example in examples])
    return choose_bands(y_true, system.calibration.probability(raw), float(system.threshold), rule)


def valid_of(examples: list[Example], selected: TrainedClassifier, samples: int) -> Valid:
    return Valid.of(examples, selected.threshold_rule, selected.calibration_method, samples)


def compare_on_test(
    examples: list[Example], original: tuple[System, np.ndarray], export: tuple[System, np.ndarray], samples: int
) -> dict[str, Any]:
    """Metrics of test with intervals: the original's, the export's, and the export minus the original.

    Args:
        examples: the n rows of test.
        original, export: what was chosen on valid, and log-odds of test before calibration, float of shape (n,).
        samples: number of resamples.
    """
    systems = {"original": original, "export": export}
    predictions = {
        name: Predictions(system.calibration.probability(raw), system.threshold, raw, system=system)
        for name, (system, raw) in systems.items()
    }
    found = compare_rows(examples, predictions, samples, "original")
    blocks = {name: kept(found[name]) for name in systems}
    return {"size": found["size"], **blocks, "difference": kept(found.get("ahead", {}).get("export", {}))}


def kept(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of KEPT with their bounds."""
    return {name: value for name, value in metrics.items() if name.removesuffix("_low").removesuffix("_high") in KEPT}


def original_system(examples: list[Example], log_odds: np.ndarray, selected: TrainedClassifier, samples: int) -> System:
    """What select chose, with the scores of these rows of valid.

    Args:
        examples: n rows of valid.
        log_odds: of them, before calibration, float of shape (n,).
        selected: the record.
        samples: number of resamples.
    """
    return System(valid_of(examples, selected, samples), log_odds, selected.calibration, selected.threshold)


def labels_of(log_odds: np.ndarray, calibration: Calibration, threshold: float) -> np.ndarray:
    """Which texts are called fraud, bool of shape (n,). log_odds: before calibration, float of shape (n,)."""
    return expit(calibration.log_odds(log_odds)) >= threshold
