"""Measurements beside the pipeline, no stages of it: recipes raced on a GPU, where memory goes, smaller cards, loss
curves, several processes, and the train stage beside a stock Trainer."""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from stages.errors import UserError
from stages.model.provenance import require_whole_base
from stages.paths import BASE_MODEL

RESULTS = Path("results")  # published figures; metrics/ holds those of the pipeline alone


def arguments(usage: str, most: int | None = None) -> list[str]:
    """What follows the command, one word at least for each that `usage` names. Raises UserError with the usage."""
    given, named = sys.argv[1:], usage.split()
    if len(given) < len(named) or (most is not None and len(given) > most):
        raise UserError(f"found {' '.join(given)!r}; expected {usage}")
    return given


def whole_number(text: str, name: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{name}: found {text!r}; expected a whole number above 0")
    return int(text)


def median_rate(rates: Sequence[float]) -> dict[str, float]:
    """Of texts per second in several windows: the median, the lowest and the highest."""
    return {
        "samples_per_second": statistics.median(rates),
        "samples_per_second_min": min(rates),
        "samples_per_second_max": max(rates),
    }


def require_gpu_and_base() -> None:
    """Raises UserError where the base model, or a GPU to measure, is not there."""
    if not torch.cuda.is_available():
        raise UserError("this measures a GPU; there is none here that torch can use")
    require_whole_base(BASE_MODEL)
