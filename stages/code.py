"""Lists the code that a result depends on: the files of this project that a module imports.

The deps in dvc.yaml follow this list (a test compares them). So do the fingerprints by which training and predict
decide whether to resume. An edit elsewhere reruns nothing and discards nothing.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_RESULT = ("stages/command.py",)  # how a command starts and ends: no result depends on it


def imported_files(*modules: str) -> list[str]:
    """The files of `modules` and of all that they import from this project: sorted paths relative to the root."""
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        file = file_of(module)
        if module in found or file is None:
            continue
        found[module] = file.relative_to(ROOT).as_posix()
        waiting += [module.rpartition(".")[0], *imports(file)]
    return sorted(set(found.values()) - set(NO_RESULT))


def file_of(module: str) -> Path | None:
    """The file of a module of this project, None for any other."""
    if module.split(".")[0] != "stages":
        return None
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file if file.is_file() else None


def imports(file: Path) -> list[str]:
    """Names that a file imports, also inside functions. Some are names inside a module."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: a relative import"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names
