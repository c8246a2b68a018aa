"""The requirements name what the code imports, and pin all that is installed for it."""

import ast
import re
import sys
from importlib.metadata import packages_distributions, version

import pytest
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tools.constraints import CONSTRAINTS, DIRECT, direct_pins, needed_in_turn, pins

OWN = {"stages", "benchmarks", "tools", "tests"}
PEERS = {"trl", "unsloth"}  # other trainers, which benchmarks import where they are installed
WITH_TORCH = {"triton"}  # which torch brings on GPUs
EXPORT = {"onnx", "onnxruntime", "llama_cpp", "sentencepiece"}  # of requirements-export.txt, imported where installed


def imported(folder: str) -> set[str]:
    """Names of the packages of others that a folder's code imports."""
    names = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module)
    modules = {name.split(".")[0] for name in names if not name.startswith("ruamel.")}
    return modules - OWN - PEERS - WITH_TORCH - EXPORT - sys.stdlib_module_names


def listed(*files: str) -> set[str]:
    return {name for file in files for name in pins(ROOT / file)}


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        (
            "stages",
            [
                "requirements.txt",
                "requirements-modelscope.txt",
                "requirements-tables.txt",
                "requirements-serve.txt",
            ],
        ),
        ("benchmarks", ["requirements.txt", "requirements-tables.txt"]),
        ("tools", ["requirements.txt", "requirements-dev.txt"]),
        ("tests", DIRECT),
    ],
)
def test_what_the_code_imports_is_required(folder, files):
    owners = packages_distributions()
    needed = {module: {canonicalize_name(name) for name in owners[module]} for module in imported(folder)}
    assert {module for module, names in needed.items() if not names & listed(*files)} == set()


def test_each_installed_package_has_the_pinned_version():
    """On a difference: `make install-dev` installs the pinned versions, `make constraints` pins newer ones."""
    direct, constraints = direct_pins(), pins(CONSTRAINTS)
    installed = needed_in_turn(direct) | {name: version(name).partition("+")[0] for name in direct}
    pinned = {name: str(pin.specifier).removeprefix("==") for name, pin in (constraints | direct).items()}
    assert {name: pinned.get(name) for name in installed} == installed


@pytest.mark.parametrize("file", [*DIRECT, CONSTRAINTS.name])
def test_requirements_name_versions_and_no_place_to_load_them_from(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    others = [
        line for line in lines if not re.fullmatch(r"#.*|-r requirements[a-z-]*\.txt|[\w.-]+(\[\w+\])?==[\w.]+", line)
    ]
    assert others == []
