"""Identifies a fetched model by its hashes and moves it to its place in one step."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

from stages.artifacts import write_json
from stages.errors import UserError
from stages.model.provenance import IDENTITY_FILE, others_sha256, read_identity, weights_sha256
from stages.params import Model
from stages.paths import RUNS


class FetchError(UserError):
    """The base model can't be fetched; the message says what to do."""


def staging_folder(model: Model) -> Path:
    """The folder where a fetch collects the files of this entry. It is kept after an interruption, to be resumed."""
    entry = json.dumps(dataclasses.asdict(model), sort_keys=True)
    folder = RUNS / "fetch" / hashlib.sha256(entry.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def already_fetched(model: Model, target: Path) -> dict[str, str] | None:
    """The record of the model in `target` if it is the wanted one, unchanged. A local folder is always read again."""
    if model.source == "folder" or not (target / IDENTITY_FILE).is_file():
        return None
    record = read_identity(target)
    wanted = {"id": model.id, "revision": model.revision or model.sha256, "source": model.source}
    present = {"sha256": weights_sha256(target), "others_sha256": others_sha256(target)}
    same = (wanted | present).items() <= record.items()
    return write_identity(target, model, present) if same else None


def publish(weights: Path, model: Model, target: Path, staging: Path) -> dict[str, str]:
    """Checks a fetched model, writes its record, moves it to `target` in one step, and removes `staging`.

    Args:
        weights: the folder with the model's files.
        model: the entry of params.yaml.
        target: where the model goes; what was there is replaced.
        staging: the folder that the fetch used.

    Returns:
        The record: id, revision, source, license, and hashes over the weight files and over the others.
    """
    if not list(weights.glob("*.safetensors")):
        raise FetchError(
            f"{model.id or model.path} has no .safetensors file; pickled weights can run code and are not read: "
            "choose a revision that has safetensors, or convert it where you trust it"
        )
    require_all_shards(weights)
    hashes = {"sha256": weights_sha256(weights), "others_sha256": others_sha256(weights)}
    identity = write_identity(weights, model, hashes)
    for file in filter(Path.is_file, weights.rglob("*")):
        if file.stat().st_nlink == 1:  # a linked file is the user's own
            file.chmod(0o644)  # safetensors writes for its owner alone, and a server may run as another user
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(weights, target)
    shutil.rmtree(staging, ignore_errors=True)
    return identity


def require_all_shards(weights: Path) -> None:
    index = weights / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(shard for shard in shards if not (weights / shard).is_file())
        if missing:
            raise FetchError(f"the model's index names {', '.join(missing)}, which are missing: run `dvc repro` again")


def write_identity(folder: Path, model: Model, hashes: dict[str, str]) -> dict[str, str]:
    identity = {
        "id": model.id or Path(model.path).name,
        "revision": model.revision or model.sha256,
        "source": model.source,
        "license": model.license,
        **hashes,
    }
    write_json(folder / IDENTITY_FILE, identity)
    return identity
