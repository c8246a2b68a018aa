"""Writes constraints.txt: all that the required packages need in turn, at the versions installed here.

python -m tools.constraints      (or: make constraints, which first installs the newest ones)
"""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = (
    "requirements-modelscope.txt",
    "requirements-tables.txt",
    "requirements-serve.txt",
)
DIRECT = ("requirements.txt", *EXTRAS, "requirements-dev.txt")
CUDA = re.compile(r"nvidia-|cuda-|triton")  # torch pins the libraries of its CUDA build itself
HEAD = "# Packages that the required ones need in turn. Written by `make constraints`.\n"


def pins(path: Path) -> dict[str, Requirement]:
    """The requirements that a file lists itself, by canonical name."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    listed = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(requirement.name): requirement for requirement in listed}


def direct_pins() -> dict[str, Requirement]:
    return {name: pin for file in DIRECT for name, pin in pins(ROOT / file).items()}


def needed_in_turn(direct: dict[str, Requirement]) -> dict[str, str]:
    """Versions of all installed packages that the direct ones need on this Python and machine."""
    versions: dict[str, str] = {}
    needed: set[str] = set()
    done: set[tuple[str, str]] = set()
    waiting = [(name, extra) for name, pin in direct.items() for extra in ("", *pin.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in done or CUDA.match(name):
            continue
        done.add((name, extra))
        try:
            package = distribution(name)
        except PackageNotFoundError:  # optional on this machine, as the CUDA libraries of a CPU build
            continue
        versions[name] = package.version
        for requirement in map(Requirement, package.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed.add(canonicalize_name(requirement.name))
                waiting += [(canonicalize_name(requirement.name), part) for part in ("", *requirement.extras)]
    return {name: versions[name] for name in needed & versions.keys()}


def main() -> None:
    for_users = pins(ROOT / DIRECT[0])  # always installed, so they need no second pin
    found = needed_in_turn(direct_pins())
    lines = [f"{name}=={version}\n" for name, version in sorted(found.items()) if name not in for_users]
    CONSTRAINTS.write_text(HEAD + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
