"""A copy of the project in a git repository of its own, for tests that run DVC."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

# Stands in for a stage: writes each output from the bytes of the data that it depends on and from its params, but not
# from its code, as a stage does whose code changed in a comment only.
STAND_IN = """
import hashlib, json, pathlib, sys
import yaml
from stages.params import read_yaml

name = sys.argv[1]
raw = read_yaml(pathlib.Path("params.yaml"))
stages = yaml.safe_load(pathlib.Path("dvc.yaml").read_text())["stages"]

def paths(entries):
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]

def value(key):
    found = raw
    for part in key.replace("${method}", raw["method"]).replace("${model}", raw["model"]).replace(
        "${dataset}", raw["dataset"]).split("."):
        found = found[part]
    return found

digest = hashlib.sha256()
for dep in sorted(d for d in stages[name]["deps"] if not d.startswith("stages")):
    path = pathlib.Path(dep)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        digest.update(file.read_bytes() if file.is_file() else b"")
values = [value(key) for key in stages[name].get("params", [])]
digest.update(json.dumps(values, sort_keys=True).encode())  # params.yaml may be rewritten in another order
inside = {d for stage in stages.values() for d in stage["deps"]}
for out in paths(stages[name].get("outs", [])) + paths(stages[name].get("metrics", [])):
    files = [d for d in inside if d.startswith(out + "/")] or ([out] if "." in out else [out + "/file"])
    for file in map(pathlib.Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"digest": "%s"}' % digest.hexdigest())
"""


def copy_project(target: Path) -> Path:
    """Copies what git tracks or would track, without dvc.lock, and commits it."""
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    git(target, "init", "--quiet", "--initial-branch=main")
    commit(target)
    return target


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", "test")


def git(where: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=where, check=True, capture_output=True, text=True).stdout


def run(where: Path, *command: str) -> str:
    """Runs a command with this Python first on the path and returns what it printed; fails with it if it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=where, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout
