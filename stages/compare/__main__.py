"""Compares the models of two revisions, on the texts that both tests hold: A is the older one, B the newer one.

python -m stages.compare main HEAD      (or: make compare A=main B=HEAD)

A and B are commits, branches, tags or experiments, or folders that hold a checkout, as it is there; "." is this one.
"""

import argparse
import math
from collections.abc import Mapping

from stages import params
from stages.command import CheckFailedError, run
from stages.compare.messages import describe
from stages.compare.pairs import compare_pairs, pair
from stages.compare.sides import read_side
from stages.errors import UserError

GATES = ("average_precision", "f1")  # written answers have the second only


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("a", metavar="A", help="a commit, an experiment, or a folder with a checkout")
    parser.add_argument("b", metavar="B", nargs="?", default=".", help="likewise; default: this folder")
    parser.add_argument(
        "--fail-below",
        type=finite,
        metavar="X",
        help="status 1 if the whole interval of B minus A in average precision, or in F1, lies below X: 0, or -0.01",
    )
    arguments = parser.parse_args()
    evaluate = params.load().evaluate
    a, b = (read_side(name, evaluate.bootstrap_samples) for name in (arguments.a, arguments.b))
    pairs = pair(a, b)
    difference = compare_pairs(pairs, evaluate.bootstrap_samples)
    for line in describe(a, b, pairs, difference, evaluate.equivalence_margin):
        print(line)
    if arguments.fail_below is None:
        return
    if not any(f"{name}_high" in difference for name in GATES):
        raise UserError(
            f"{arguments.a} and {arguments.b} can't be judged by --fail-below: their tests share too few units for an "
            "interval; expected five or more: see data that differ above, or leave the option out"
        )
    if worse := below(difference, arguments.fail_below):
        raise CheckFailedError(
            f"{arguments.b} is worse than {arguments.a} in {' and '.join(worse)}: the whole interval lies below "
            f"{arguments.fail_below:g}; expected no such loss: see params and data that differ above"
        )


def finite(text: str) -> float:
    """A number of the command line. NaN would let every loss pass."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def below(difference: Mapping[str, float], limit: float) -> list[str]:
    """The gates whose whole interval lies below a limit."""
    return [name for name in GATES if difference.get(f"{name}_high", limit) < limit]


if __name__ == "__main__":
    run(main, error_status=2)  # 1: B is worse
