"""Writes what people and DVC read: metric JSON, plot CSV and folders.

Files appear whole or not at all, and the same values always give the same bytes.
"""

import contextlib
import csv
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save

from stages.distributed import is_main_process, wait_for_all
from stages.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Opens a text file that replaces `path` only when the block ends without an error.

    With several processes, only the first writes. Raises UserError if `path` is a device or a pipe, which a file must
    not replace.
    """
    if not is_main_process():
        yield io.StringIO()
        return
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a folder, a device or a pipe; expected a file, or a name that is free")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yields a folder beside `path` to write to. It replaces `path` only when the block ends without an error.

    Several processes may write to it, each its own files. All must enter and leave the block.
    Raises UserError if the disk is full or the file system fails. `path` is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent / f".writing-{path.name}"
    try:
        if is_main_process():
            shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed
            folder.mkdir()
        wait_for_all()
        yield folder
        wait_for_all()
        if is_main_process():
            for file in [*folder.rglob("*"), folder]:
                flush(file)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(folder, path)
            flush(path.parent)
        wait_for_all()
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors raise the last two on a full disk
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, RuntimeError) and "write" not in str(error):
            raise
        free = shutil.disk_usage(path.parent).free / 1e9
        raise UserError(
            f"{path} could not be written: {error}. What was there before is unchanged. Make room ({free:.2f} GB are "
            "free on that disk) and run `dvc repro` again: training resumes from its last saved step"
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def flush(path: Path) -> None:
    """Waits until a file or folder is on the disk, so that it survives a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes nested metrics with sorted keys.

    Raises ValueError for a list, which `dvc metrics` drops silently, and for a number that JSON does not have.
    """
    reject_unreadable(values, path.name)
    with replacing(path) as file:
        json.dump(values, file, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)
        file.write("\n")


def reject_unreadable(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            reject_unreadable(value, f"{where}: {key}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: {key} is {value}; expected a finite number")
        elif not isinstance(value, str | int | float | bool | None):
            raise ValueError(f"{where}: {key} is a {type(value).__name__}; expected a number, a text or a mapping")


def write_numbers(path: Path, numbers: dict[str, np.ndarray]) -> None:
    """Writes named arrays as safetensors, a format without pickle. With several processes, only the first writes."""
    if not is_main_process():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        written.write_bytes(save(numbers))
        os.replace(written, path)
    finally:
        written.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: list[str]) -> None:
    """Writes rows under a header. A column that a row lacks stays empty."""
    with replacing(path) as file:
        writer = csv.DictWriter(UnixRows(file), columns, lineterminator="\r\n", restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@dataclass(frozen=True)
class UnixRows:
    """Turns the row ends of a csv writer into \\n.

    Readers end a row at a bare \\r too, so it has to be quoted. The csv writer does that only if its rows end in one.
    """

    file: TextIO

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix("\r\n") + "\n")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
