"""Writes report/index.html, one page for the person who decides. It needs no network.

python -m stages.report
python -m stages.report --out runs/report.html --against main    # with commit, timings and an earlier run's figures
"""

import argparse
from pathlib import Path

from stages.artifacts import replacing
from stages.command import run
from stages.paths import REPORT
from stages.report.here import earlier, machine
from stages.report.page import page
from stages.report.read import read_run


def main() -> None:
    parser = argparse.ArgumentParser("python -m stages.report", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help=f"another file than {REPORT}; it also says commit, time and timings")
    parser.add_argument("--against", metavar="REV", help="a revision of git whose figures stand beside; needs --out")
    given = parser.parse_args()
    if given.against and not given.out:
        parser.error("--against needs --out: the stage's file holds this run only")
    found = read_run()
    extra = machine(found) if given.out else ""
    if given.against:
        extra = earlier(found, given.against) + extra
    out = given.out or REPORT
    with replacing(out) as file:
        file.write(page(found, extra))
    print(f"report: {out}: open it in a browser")


if __name__ == "__main__":
    run(main)
