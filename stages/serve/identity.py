"""Which model answers: a name for the bytes of its folder."""

import hashlib
from pathlib import Path
from typing import Any

from stages.artifacts import read_json
from stages.classifier.trained import RECORD_FILE

EXPORT_FILE = "export.json"
PROSE = {"README.md", "valid.csv", "parity.json", "operating_points.json"}  # no answer depends on them
SHOWN = 12  # hex digits
CHUNK = 1 << 20


def identity(folder: Path) -> dict[str, Any]:
    """`id`, the start of a sha256 over names and bytes of the files in a folder; kind of the model, and its base."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in PROSE):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while chunk := opened.read(CHUNK):
                digest.update(chunk)
    return {"id": digest.hexdigest()[:SHOWN], **describe(folder)}


def describe(folder: Path) -> dict[str, Any]:
    """What the record of the folder says of itself."""
    if (folder / EXPORT_FILE).is_file():
        record = read_json(folder / EXPORT_FILE)
        base = record.get("base")
        return {"kind": record.get("kind"), "base": base.get("id") if isinstance(base, dict) else base}
    record = read_json(folder / RECORD_FILE)
    return {"kind": record.get("system", "model"), "base": record["base"]["id"]}
