"""Writes report/index.html, one page for the person who decides. It needs no network.

It also copies the figures of train and probe to metrics/, where git keeps them.

python -m stages.report
"""

from stages.artifacts import replacing, write_json
from stages.command import run
from stages.paths import METRICS, PROBE_FIGURES, REPORT, TRAIN_FIGURES
from stages.report.page import page
from stages.report.read import opened, read_figures, read_run


def main() -> None:
    measured = {METRICS / path.name: opened(path, read_figures) for path in (TRAIN_FIGURES, PROBE_FIGURES)}
    for path, figures in measured.items():
        write_json(path, figures)
    text = page(read_run())
    with replacing(REPORT) as file:
        file.write(text)
    print(f"report: {REPORT}: open it in a browser")


if __name__ == "__main__":
    run(main, options=False)
