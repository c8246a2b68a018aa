"""A project of the real stages on a tiny model, whose params make a run short."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from stages import params
from stages.artifacts import read_json
from tests.pipeline.project import commit, copy_project

STAGES = ("fetch", "prepare", "benchmark", "probe", "train", "select", "evaluate", "folds", "report")


def tiny_project(folder: Path, base_folder: Path) -> Path:
    copy_project(folder)
    raw = params.read_yaml(folder / "params.yaml")
    raw["models"]["tiny"] = {"source": "folder", "path": str(base_folder)}
    raw["model"], raw["method"] = "tiny", "lora"
    raw["datasets"]["sample"] = {"pool": "data/sample/pool.jsonl"}  # the smaller of its two files
    raw["train"] |= {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 16,
        "eval_steps": 0.25,
        "learning_rate": 1e-2,
    }
    raw["train"] |= {"lora_dropout": 0.1, "save_steps": 2, "logging_steps": 3}
    raw["benchmark"] |= {"repeats": 1, "batch_size": 2, "sequence_length": 16, "methods": ["lora"], "prequantized": []}
    raw["evaluate"] |= {"bootstrap_samples": 100}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True, sort_keys=False), encoding="utf-8")
    commit(folder)
    return folder


def copied(project: Path, folder: Path) -> Path:
    """The project as it is, in a folder of a test's own."""
    return Path(shutil.copytree(project, folder / "project", symlinks=True))


def start(folder: Path, *command: str, log: Path) -> subprocess.Popen:
    """In a session of its own, so that all that it starts can be killed at once."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    with log.open("w") as file:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def kill_after(process: subprocess.Popen, seconds: float) -> bool:
    """SIGKILL to the process and all that it started; whether there was still something to kill."""
    try:
        process.wait(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def results(folder: Path) -> dict[str, object]:
    """All figures but those of time, memory and machine, and the bytes of what a run leaves for the next stage."""
    found = {}
    for name in ("data", "benchmark", "probe", "train", "select", "evaluate", "folds"):
        found |= flat(read_json(folder / f"metrics/{name}.json"), name)
    written = ("models/selected/*", "metrics/plots/*.csv", "data/processed/*", "data/probe/*", "data/predictions/*.csv")
    written += ("report/*",)
    for pattern in written:
        for file in folder.glob(pattern):
            if file.is_file() and file.name != "benchmark.csv":
                found[str(file.relative_to(folder))] = file.read_bytes()
    return found


def flat(values: dict, where: str) -> dict[str, object]:
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= {} if key in ("measured", "environment") else flat(value, f"{where}.{key}")
        elif not key.endswith("_per_second"):
            found[f"{where}.{key}"] = value
    return found
