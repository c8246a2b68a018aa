"""Runs the pipeline and compares its figures with the committed ones, within the bands of params.yaml (verify.bands).

python -m stages.verify                   (or: make verify)
python -m stages.verify --device cuda     evaluates the adapter that dvc.lock pins, on a GPU: nothing is trained
"""

import argparse

from stages import params
from stages.artifacts import read_json
from stages.command import CheckFailedError, run
from stages.errors import UserError
from stages.params import PARAMS_FILE
from stages.paths import METRICS
from stages.revisions import Revision
from stages.verify.bands import Row, compare_figures, format_table, look_at, other_versions
from stages.verify.pipeline import run_evaluation, run_pipeline

FIGURES = METRICS / "evaluate.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.verify", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda: evaluation of the pinned adapter only")
    parser.add_argument("--against", metavar="REV", default="HEAD", help="whose figures; default: the last commit")
    parser.add_argument("--no-run", action="store_true", help="run nothing: compare the figures that are there")
    arguments = parser.parse_args()
    bands = params.load().verify.bands
    committed = Revision(arguments.against, "expected a commit with figures: `git log -- metrics/evaluate.json`")
    old = committed.json(FIGURES)
    require_same_params(committed)
    if not arguments.no_run:
        run_evaluation() if arguments.device == "cuda" else run_pipeline(arguments.device)
    new = read_json(FIGURES)
    rows = compare_figures(old, new, bands)
    for line in format_table(rows):
        print(f"verify: {line}")
    for line in other_versions(old, new):
        print(f"verify: {line}")
    report(rows, arguments.against)


def require_same_params(committed: Revision) -> None:
    """Raises UserError if params.yaml has other values than the commit's, apart from the bands."""
    old, new = (each.yaml(PARAMS_FILE) | {"verify": None} for each in (committed, Revision(".", "expected a file")))
    if old != new:
        changed = ", ".join(sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)))
        raise UserError(
            f"{PARAMS_FILE} differs from that of {committed} in {changed}; expected the same, since other params give "
            f"other figures: `git diff {committed} -- {PARAMS_FILE}`"
        )


def report(rows: list[Row], against: str) -> None:
    """Prints that all figures are within their bands. Raises CheckFailedError if one is not."""
    outside = [row for row in rows if not row.within]
    if outside:
        raise CheckFailedError(
            f"{len(outside)} of {len(rows)} figures are outside their bands: {', '.join(row.name for row in outside)}. "
            f"Look at {'; '.join(look_at(outside))}"
        )
    print(f"verify: all {len(rows)} figures are within their bands of those of {against}")


if __name__ == "__main__":
    run(main, error_status=2)  # 1: a figure is outside its band
