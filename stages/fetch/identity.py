"""What a fetched model is, by hash, and how it takes its place."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

from stages import UserError
from stages.model.identity import IDENTITY_FILE
from stages.params import Model
from stages.paths import RUNS
from stages.report import write_json


class FetchError(UserError):
    """The base model can't be had as asked; the message says what to do."""


def staging_folder(model: Model) -> Path:
    """Where a fetch collects its files: of this entry alone, and kept when it breaks off, so that the next goes on."""
    entry = json.dumps(dataclasses.asdict(model), sort_keys=True)
    folder = RUNS / "fetch" / hashlib.sha256(entry.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def publish(weights: Path, model: Model, target: Path, staging: Path) -> dict[str, str]:
    """Checks the folder `weights`, writes its record, and moves it to `target` in one step; `staging` is removed.

    Returns the record: id, revision, source, license and sha256, over the names and hashes of the weight files.
    """
    for name in ("config.json", "tokenizer.json"):
        if not (weights / name).is_file():
            raise FetchError(
                f"{model.id or model.path} has no {name}; expected a causal language model in the hub's layout"
            )
    shards = sorted(weights.glob("*.safetensors"))
    if not shards:
        raise FetchError(
            f"{model.id or model.path} has no .safetensors file; pickled weights can run code and are not read: "
            "choose a revision that has safetensors, or convert it where you trust it"
        )
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(f"{shard.name}:{file_sha256(shard)}\n".encode())
    identity = {
        "id": model.id or Path(model.path).name,
        "revision": model.revision or model.sha256,
        "source": model.source,
        "license": model.license,
        "sha256": digest.hexdigest(),
    }
    write_json(weights / IDENTITY_FILE, identity)
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(weights, target)
    shutil.rmtree(staging, ignore_errors=True)
    return identity


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
