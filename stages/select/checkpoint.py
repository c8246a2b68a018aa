"""Which checkpoint, by what the train stage wrote at each evaluation."""


def best_row(history: list[dict[str, str]], metric: str) -> dict[str, str]:
    """The evaluation whose `metric` on valid is best: lowest for loss, highest for the others; the earliest of equals.

    Args:
        history: rows of metrics/plots/valid.csv.
        metric: "loss", "average_precision" or "f1".
    """
    sign = {"loss": -1, "average_precision": 1, "f1": 1}[metric]
    return max(history, key=lambda row: sign * float(row[metric]))
