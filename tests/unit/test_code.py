"""The code that a stage depends on: what dvc.yaml lists, and what Python loads."""

import sys
from pathlib import Path

import pytest
import yaml

from stages.code import imported_files
from tests.conftest import ROOT
from tests.pipeline.project import run
from tools.deps import code_deps

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_deps_are_the_code_that_it_imports_file_by_file(stage):
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith("stages")]
    assert deps == code_deps(stage), "run `python -m tools.deps`"


def test_the_code_of_a_module_is_what_python_loads():
    """Against the interpreter: what a fresh process has loaded after the import, but for functions' own imports."""
    code = "import sys, stages.evaluate.__main__; print(*(m.__file__ for n, m in sys.modules.items() if 'stages' in n))"
    loaded = {Path(file).relative_to(ROOT).as_posix() for file in run(ROOT, sys.executable, "-c", code).split()}
    assert loaded - {"stages/command.py"} == set(imported_files("stages.evaluate.__main__"))
