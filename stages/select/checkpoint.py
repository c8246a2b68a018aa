"""Chooses a checkpoint by the metrics that the train stage wrote at each evaluation."""


def best_row(history: list[dict[str, str]], metric: str) -> dict[str, str]:
    """The evaluation whose `metric` on valid is best: the lowest loss, or the highest of another. Ties: the earliest.

    Args:
        history: rows of metrics/plots/valid.csv.
        metric: "loss", "average_precision" or "f1".
    """
    sign = {"loss": -1, "average_precision": 1, "f1": 1}[metric]
    return max(history, key=lambda row: sign * float(row[metric]))
