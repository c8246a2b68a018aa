"""Chooses a checkpoint among the evaluations of the train stage."""

from typing import Literal, assert_never


def chosen_row(history: list[dict[str, str]], checkpoint: Literal["last", "best"], metric: str) -> dict[str, str]:
    """The evaluation whose checkpoint is selected.

    Args:
        history: rows of metrics/plots/valid.csv.
        checkpoint: "last", or "best" for the best `metric` on valid: the lowest loss, or the highest of another. Of
            equal ones the earliest is taken.
        metric: "loss", "average_precision" or "f1".
    """
    if checkpoint == "last":
        return max(history, key=lambda row: int(row["step"]))
    if checkpoint == "best":
        sign = {"loss": -1, "average_precision": 1, "f1": 1}[metric]
        return max(history, key=lambda row: sign * float(row[metric]))
    assert_never(checkpoint)
