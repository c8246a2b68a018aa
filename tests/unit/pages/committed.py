"""The committed figures, and how the pages show them."""

import json
import subprocess

import pytest

from tests.conftest import ROOT
from tools import figures

RESULTS = ROOT / figures.RESULTS

# After `make repro` metrics/ holds this machine's figures; pages and pictures show those of the commit.
OWN_RUN = bool(
    subprocess.run(["git", "status", "--porcelain", "--", "metrics"], cwd=ROOT, stdout=subprocess.PIPE).stdout
)
COMMITTED = pytest.mark.skipif(OWN_RUN, reason="metrics/ holds figures that are not committed")


def read(path):
    return json.loads(path.read_text())


def table_row(*cells):
    return f"| {' | '.join(cells)} |"
