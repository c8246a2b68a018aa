"""Says whether new texts, without labels, are like those that the classifier was trained and its threshold chosen on.

python -m stages.drift --file new.jsonl
python -m stages.drift --folder days/        # a file a day

Status 1 if they are not, and 2 after an error.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stages.artifacts import replacing, write_json
from stages.classifier.scorer import Scorer, load_scorer
from stages.classifier.shift import FEWEST_ROWS
from stages.command import run
from stages.drift.compare import Batch, Comparison, compare_all, report
from stages.drift.page import page
from stages.drift.reference import Reference, read_reference
from stages.errors import UserError
from stages.model.scoring import require_finite
from stages.paths import RUNS, SELECTED
from stages.predict.read import NoRowsError, count_rows, is_stream, parse_window, windows
from stages.predict.source import Source

OUT = RUNS / "drift"


def main() -> None:
    given = read_arguments()
    sources = [Source(path, given.text_column) for path in files_of(given.file, given.folder)]
    for source in sources:
        require_file(source)
        with contextlib.suppress(NoRowsError):  # an empty day has too few texts
            count_rows(source)  # bad rows are reported before anything is scored
    reference = read_reference(SELECTED)
    scorer = load_scorer()
    compared = compare_all(reference, [read_batch(scorer, source) for source in sources], given.level)
    values = report(reference, compared, given.level)
    write_json(given.out / "drift.json", values)
    with replacing(given.out / "drift.html") as file:
        file.write(page(values))
    for each in compared:
        print(f"drift: {line_of(each, reference)}")
    print(f"drift: {conclusion(compared, given.level)} See {given.out / 'drift.html'}")
    if values["alarm"]:
        sys.exit(1)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m stages.drift", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--file", type=Path, action="append", default=[], help="new texts, in a format of predict; may be repeated"
    )
    parser.add_argument("--folder", type=Path, help="a folder of such files, for example one a day")
    parser.add_argument(
        "--text-column", default="input", metavar="NAME", help="key or column of the text (%(default)s)"
    )
    parser.add_argument(
        "--level",
        type=float,
        default=0.05,
        help="how often a run may raise an alarm though nothing has changed, over all its files (%(default)s)",
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder of drift.json and drift.html (%(default)s)")
    given = parser.parse_args()
    if not given.file and not given.folder:
        parser.error("give --file or --folder")
    if not 0.001 <= given.level <= 0.5:
        parser.error("--level must lie between 0.001 and 0.5")
    return given


def files_of(files: Iterable[Path], folder: Path | None) -> list[Path]:
    """The files to compare, each once: those named, then those of the folder by name."""
    found = list(files)
    if folder:
        if not folder.is_dir():
            raise UserError(f"--folder {folder} is no folder; expected one with a file of texts for each day")
        inside = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        if not inside:
            raise UserError(f"--folder {folder} holds no file; expected one with a file of texts for each day")
        found += inside
    twice = [path for number, path in enumerate(found) if path in found[:number]]
    if twice:
        raise UserError(f"{twice[0]} is given twice; expected each file once: leave one out")
    return found


def require_file(source: Source) -> None:
    if is_stream(source):
        raise UserError(f"{source.name} is a pipe; expected a file, since the texts are read twice: save them first")


def read_batch(scorer: Scorer, source: Source) -> Batch:
    """Reads and scores the texts of a file, which may be empty."""
    lines = [each for window in windows(source) for each in window]
    texts = [row.text for row in parse_window(source, lines)]
    if not texts:
        return Batch(source.name, [], np.zeros(0))
    scores = scorer.score(texts, title=source.name)
    require_finite(scores.log_odds, [f"{source.name}, line {number}" for number, _ in lines])
    selected = scorer.selected
    return Batch(
        source.name, [selected.as_read(text) for text in texts], selected.calibration.log_odds(scores.log_odds)
    )


def line_of(each: Comparison, reference: Reference) -> str:
    """What a set of texts is like, in a line."""
    parts = [f"{each.name}: {each.texts} texts"]
    if each.flagged is not None:
        parts[0] += f", {each.flagged:.1%} called fraud"
    if not each.tests:
        return f"{parts[0]}: fewer than {FEWEST_ROWS} different texts ({each.different}), so nothing can be said"
    if each.fraud:
        found = each.fraud
        parts.append(f"fraud estimated at {found.share:.0%} ({found.low:.0%} to {found.high:.0%})")
        if found.precision is not None:
            promised = reference.selected.promised["precision"]
            ends = f"{found.precision_low:.2f} to {found.precision_high:.2f}"
            parts.append(f"precision then {found.precision:.2f} ({ends}; promised {promised:.2f})")
    furthest = min(each.tests, key=lambda name: each.tests[name].p_value)
    verdict = f"ALARM, most by {furthest}" if each.alarm else "no alarm"
    return ", ".join([*parts, f"{verdict} (p {each.p_value:.4f})"])


def conclusion(compared: list[Comparison], level: float) -> str:
    """What follows for all files."""
    tested, alarms = sum(bool(each.tests) for each in compared), sum(each.alarm for each in compared)
    if not tested:
        return f"Nothing can be said: no file has {FEWEST_ROWS} different texts."
    if not alarms:
        return f"No file of {tested} differs from train and valid by more than chance (level {level:.0%})."
    return f"{alarms} of {tested} files differ from train and valid by more than chance (level {level:.0%})."


if __name__ == "__main__":
    run(main, error_status=2)  # 1 is an alarm
