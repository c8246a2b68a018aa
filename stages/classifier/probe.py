"""The fitted probe: a weight for each number of a text's mean hidden state in one layer of the frozen base model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from stages.artifacts import write_numbers
from stages.errors import UserError

PROBE_FILE = "probe.safetensors"


@dataclass(frozen=True)
class Probe:
    """A linear classifier of hidden states. The weights hold their standardization.

    layer: number of the decoder layer, from 1. weight: float64 of shape (H,). intercept: added to each score.
    """

    layer: int
    weight: np.ndarray
    intercept: float

    def log_odds(self, states: np.ndarray) -> np.ndarray:
        """The log-odds of fraud, float64 of shape (N,), of mean states (N, H). A text's does not depend on others."""
        # A sum for each row by itself: a matrix product sums in an order that depends on the number of rows.
        return (states.astype(np.float64) * self.weight).sum(axis=1) + self.intercept


def write_probe(folder: Path, probe: Probe) -> None:
    numbers = {"layer": np.array([probe.layer]), "weight": probe.weight, "intercept": np.array([probe.intercept])}
    write_numbers(folder / PROBE_FILE, numbers)


def read_probe(folder: Path, width: int | None = None) -> Probe:
    """Reads the file of `write_probe`. Raises UserError if it is missing or damaged, or not for states of `width`."""
    try:
        numbers = load((folder / PROBE_FILE).read_bytes())
        layer, intercept = int(numbers["layer"].item()), float(numbers["intercept"].item())
        probe = Probe(layer, numbers["weight"], intercept)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{folder / PROBE_FILE} can't be read: {type(error).__name__}: {error}; expected the file that stage probe "
            "writes: run `dvc repro`"
        ) from error
    if width is not None and probe.weight.shape != (width,):
        raise UserError(
            f"{folder / PROBE_FILE} has weights of shape {probe.weight.shape}; expected ({width},), as the base "
            "model's hidden states have: run `dvc repro`"
        )
    return probe
