"""Runs the stages of two revisions on a tiny model, with one thread, and compares every file that they write.

python -m tools.same REV [OTHER]      OTHER: another revision; the tracked files as they are now, if it is left out

Exit status: 0 all files are the same, 1 a file differs or training killed and resumed differs, 2 a stage failed.
The stage benchmark is left out: it measures time and memory.
"""

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tools.tiny import make_base

# What REV names otherwise than OTHER: a file or folder, or a key of a JSON file. Empty it once both sides agree.
RENAMED_PATHS: dict[str, str] = {}  # "metrics/old.json": "metrics/new.json"
RENAMED_KEYS: dict[str, dict[str, str]] = {}  # "metrics/train.json": {"facts.old": "facts.new"}

# Left out, with the reason that is printed.
LEFT_OUT_FILES = {"models/selected/README.md": "prose: the model card"}
LEFT_OUT_KEYS = ("measured", "environment")  # of metrics/*.json and FIGURES, at any depth
LEFT_OUT_ENDINGS = ("_per_second",)

STAGES = ("fetch", "prepare", "probe", "train", "select", "evaluate", "folds", "report")
PREDICTED = "predicted.jsonl"
WRITTEN = ("models", "data/processed", "data/probe", "data/predictions", "metrics", "report", PREDICTED)
FIGURES = {"models/train.json", "models/probe.json"}
TRAINED = ("models/checkpoints", "metrics/plots/train.csv", "metrics/plots/valid.csv")
SAMPLE = ("data/sample/pool.jsonl", "data/sample/pool-2.jsonl")  # the second has long, English and mixed texts, too
SAMPLE_ROWS = 320  # of each file, its first: prepare fits the baseline six times
PREDICT = ("predict", "--file", SAMPLE[1], "--out", PREDICTED)
BASE = "base"  # a folder in each side's, from which it fetches
# Short, and through as many branches as one run can take.
OVERRIDES = {
    "model": "tiny",
    "models": {"tiny": {"source": "folder", "path": BASE}},
    "method": "qlora",
    "methods": {"qlora": {"dtype": "float32"}},
    "train": {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 16,
        "learning_rate": 0.01,
        "lora_dropout": 0.1,
        "eval_steps": 0.3,
        "save_steps": 2,
        "logging_steps": 3,
    },
    "evaluate": {"bootstrap_samples": 100, "further_sets": {"pool": SAMPLE[0]}},
}


class CompareError(Exception):
    """Nothing could be compared; the message says why."""


@dataclass(frozen=True)
class Row:
    """A line of the report. verdict: same | differs | left out."""

    file: str
    verdict: str
    why: str = ""


def main() -> None:
    arguments = read_arguments()
    try:
        require_root()
        with tempfile.TemporaryDirectory(prefix="same-") as name:
            rows = compare_revisions(arguments.rev, arguments.other, Path(arguments.keep or name))
    except CompareError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(1 if any(row.verdict == "differs" for row in rows) else 0)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.same", description=__doc__.splitlines()[0])
    parser.add_argument("rev", help="a git revision")
    parser.add_argument("other", nargs="?", help="another (default: the tracked files as they are now)")
    parser.add_argument("--keep", type=Path, help="an empty folder for both sides' files, which stay there")
    return parser.parse_args()


def compare_revisions(rev: str, other: str | None, work: Path) -> list[Row]:
    """Runs both sides in `work`, prints the report and returns its rows."""
    began = time.monotonic()
    sides = {"rev": rev, "other": other}
    for side, revision in sides.items():
        check_out(revision, work / side)
        override_params(work / side / "params.yaml")
        cut_sample(work / side)
        shutil.rmtree(work / side / "metrics", ignore_errors=True)  # of another run
    make_base(work / BASE, work / "other" / SAMPLE[0])
    for side in sides:
        shutil.copytree(work / BASE, work / side / BASE)
    print(f"same: running {', '.join(STAGES)} and predict of {rev} and of {other or 'the working tree'}", flush=True)
    with ThreadPoolExecutor(len(sides)) as pool:
        list(pool.map(lambda side: run_stages(work / side), sides))
    rows = compare_folders(work / "rev", work / "other", WRITTEN)
    rows.append(compare_resumed(work / "other"))
    print_report(rows, time.monotonic() - began)
    return rows


def require_root() -> None:
    """Raises CompareError unless the working directory is the root of a git repository, as all paths expect."""
    root = git("rev-parse", "--show-toplevel").decode().strip()
    if not Path(root).samefile(Path.cwd()):
        raise CompareError(f"this is not the root of the project: cd {root}")


def check_out(revision: str | None, folder: Path, *names: str) -> None:
    """Puts a revision's files, or the tracked files as they are now, into a new folder; names: these alone."""
    folder.mkdir(parents=True)
    if revision is None:
        for name in git("ls-files", "-z", *names).decode().split("\0"):
            if name and Path(name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(name, folder / name)
    else:
        with zipfile.ZipFile(io.BytesIO(git("archive", "--format=zip", revision, *names))) as archive:
            archive.extractall(folder)


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], capture_output=True)
    if done.returncode:
        raise CompareError(f"git {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return done.stdout


def override_params(file: Path) -> None:
    yaml = YAML()  # YAML 1.2, as DVC reads it: 2e-4 is a number
    params = yaml.load(file)
    merge(params, OVERRIDES)
    yaml.dump(params, file)


def cut_sample(folder: Path) -> None:
    for file in (folder / name for name in SAMPLE):
        if file.is_file():
            file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:SAMPLE_ROWS]))


def merge(values: dict, changes: Mapping[str, Any]) -> None:
    """Replaces values in place, table by table."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value


def run_stages(folder: Path) -> None:
    for command in (*((stage,) for stage in STAGES if has_stage(folder, stage)), PREDICT):
        began = time.monotonic()
        finish(start(folder, *command), folder, command[0])
        print(f"same: {folder.name}: {command[0]}, {time.monotonic() - began:.0f} s", flush=True)


def has_stage(folder: Path, stage: str) -> bool:
    """Whether the code of `folder` has a stage; an older revision may lack one, and then its files differ."""
    return (folder / f"stages/{stage}").is_dir() or (folder / f"stages/{stage}.py").is_file()


def start(folder: Path, stage: str, *arguments: str) -> subprocess.Popen:
    """Starts a stage by the code of `folder` on one thread of the CPU, with a log beside that folder."""
    dropped = ("DVC_STAGE", "NPROC", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    environment |= {
        "PYTHONPATH": str(folder.resolve()),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONWARNINGS": "ignore",
    }
    with log_of(folder, stage).open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", f"stages.{stage}", *arguments],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def log_of(folder: Path, stage: str) -> Path:
    return folder.parent / f"{folder.name}-{stage}.log"


def finish(process: subprocess.Popen, folder: Path, stage: str) -> None:
    if process.wait():
        printed = log_of(folder, stage).read_text(errors="replace")[-3000:]
        raise CompareError(f"{folder.name}: {stage} ended with status {process.returncode}:\n{printed}")


def compare_folders(rev: Path, other: Path, written: tuple[str, ...]) -> list[Row]:
    """A row for each file that either side has at the paths `written`."""
    old = {renamed_path(name): path for name, path in files_of(rev, written)}
    new = dict(files_of(other, written))
    rows = []
    for name in sorted(old.keys() | new.keys()):
        if name in LEFT_OUT_FILES:
            rows.append(Row(name, "left out", LEFT_OUT_FILES[name]))
        elif name not in old or name not in new:
            rows.append(Row(name, "differs", f"only {'OTHER' if name in new else 'REV'} writes it"))
        else:
            rows.append(compare_files(name, old[name].read_bytes(), new[name].read_bytes()))
    return rows


def files_of(folder: Path, written: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name in written:
        top = folder / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path


def renamed_path(name: str) -> str:
    for old, new in RENAMED_PATHS.items():
        if name == old or name.startswith(f"{old}/"):
            return new + name[len(old) :]
    return name


def compare_files(name: str, old: bytes, new: bytes) -> Row:
    """By bytes; a metrics JSON, whose timings are left out, and one with renamed keys by their values."""
    if old == new:
        return Row(name, "same")
    if name.endswith(".json") and (name.startswith("metrics/") or name in FIGURES | RENAMED_KEYS.keys()):
        return compare_json(name, old, new)
    return Row(name, "differs", first_difference(old, new))


def compare_json(name: str, old: bytes, new: bytes) -> Row:
    dropped: set[str] = set()
    renamed = RENAMED_KEYS.get(name, {})
    before = {renamed.get(key, key): value for key, value in flat(json.loads(old), dropped)}
    after = dict(flat(json.loads(new), dropped))
    for key in sorted(before.keys() | after.keys()):
        one, two = (repr(values[key]) if key in values else "nothing" for values in (before, after))
        if one != two:
            return Row(name, "differs", f"{key}: {one} | {two}")
    return Row(name, "same", f"without {', '.join(sorted(dropped))}" if dropped else "by value")


def flat(values: Mapping[str, Any], dropped: set[str], where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values, less timings and environment, whose names are added to `dropped`."""
    for key, value in values.items():
        if key in LEFT_OUT_KEYS or key.endswith(LEFT_OUT_ENDINGS):
            dropped.add(key)
        elif isinstance(value, Mapping) and value:
            yield from flat(value, dropped, f"{where}{key}.")
        else:
            yield f"{where}{key}", value


def first_difference(old: bytes, new: bytes) -> str:
    """The first line of a text, or the first byte, that differs."""
    at = next((n for n, (one, two) in enumerate(zip(old, new, strict=False)) if one != two), min(len(old), len(new)))
    if b"\0" in old + new:
        return f"from byte {at} on, of {len(old)} | {len(new)}"
    begin = old.rfind(b"\n", 0, at) + 1  # of the line, on both sides
    one, two = (shown_line(text[begin:], at - begin) for text in (old, new))
    line = old[:at].count(b"\n") + 1
    return f"the end of line {line}" if one == two else f"line {line}: {one} | {two}"


def shown_line(rest: bytes, column: int) -> str:
    """What stands around a byte of the first line."""
    return repr(rest.split(b"\n")[0][max(0, column - 10) :][:60].decode(errors="replace")) if rest else "nothing"


def compare_resumed(folder: Path) -> Row:
    """Trains again in `folder`, killed once it has saved its second state and then resumed: whether the bytes stay."""
    name = "training killed and resumed"
    whole = folder.parent / "whole"
    for path in TRAINED:
        (whole / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / path, whole / path)
    shutil.rmtree(folder / "runs")
    process = start(folder, "train")
    while process.poll() is None and len(list(folder.glob("runs/train/*/*-[0-9]*"))) < 2:
        time.sleep(0.02)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        return Row(name, "differs", f"never seen at work: it ended with status {process.returncode}")
    finish(start(folder, "train"), folder, "train")
    differing = [row for row in compare_folders(whole, folder, TRAINED) if row.verdict == "differs"]
    return Row(name, "differs", f"{differing[0].file}: {differing[0].why}") if differing else Row(name, "same")


def print_report(rows: list[Row], seconds: float) -> None:
    width = max(len(row.file) for row in rows)
    for row in rows:
        print(f"{row.file:{width}}  {row.verdict:8}  {row.why}".rstrip())
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in ("same", "differs", "left out")}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    print(f"same: {told}; the stage benchmark is left out (it measures time and memory); {seconds:.0f} s")


if __name__ == "__main__":
    main()
