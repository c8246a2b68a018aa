"""Writes report/index.html, one page for the person who decides. It needs no network.

It also writes what git keeps of the figures of train and probe.

python -m stages.report
"""

from stages.artifacts import read_json, replacing, write_json
from stages.command import run
from stages.paths import METRICS, PROBE_FIGURES, REPORT, TRAIN_FIGURES
from stages.report.page import page
from stages.report.read import opened, read_run


def main() -> None:
    for figures in (TRAIN_FIGURES, PROBE_FIGURES):
        write_json(METRICS / figures.name, opened(figures, read_json))
    text = page(read_run())
    with replacing(REPORT) as file:
        file.write(text)
    print(f"report: {REPORT}: open it in a browser")


if __name__ == "__main__":
    run(main, options=False)
