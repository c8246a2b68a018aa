"""Writes report/index.html, one page for the person who decides. It needs no network.

python -m stages.report
"""

from stages.artifacts import replacing
from stages.command import run
from stages.paths import REPORT
from stages.report.page import page
from stages.report.read import read_run


def main() -> None:
    text = page(read_run())
    with replacing(REPORT) as file:
        file.write(text)
    print(f"report: {REPORT}: open it in a browser")


if __name__ == "__main__":
    run(main, options=False)
