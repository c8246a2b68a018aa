"""Which base model an adapter belongs to, and whether the base model's files are those that were fetched."""

import hashlib
from pathlib import Path

from stages.artifacts import read_json
from stages.errors import UserError

IDENTITY_FILE = "base.json"  # in models/base: id, revision, source, license, sha256 of the weights, of the other files


def read_identity(base_folder: Path) -> dict[str, str]:
    return read_json(base_folder / IDENTITY_FILE)


def weights_sha256(folder: Path) -> str:
    """Hash of the weight files' names and hashes."""
    return files_sha256(sorted(folder.glob("*.safetensors")))


def others_sha256(folder: Path) -> str:
    """Hash of the other files' names and hashes: configuration and tokenizer."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != IDENTITY_FILE)
    return files_sha256([file for file in files if file.suffix != ".safetensors"])


def files_sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_whole_base(base_folder: Path) -> None:
    """Raises UserError unless the files in `base_folder` are, byte for byte, those that were fetched."""
    if not (base_folder / IDENTITY_FILE).is_file():
        raise UserError(f"{base_folder} holds no fetched model ({IDENTITY_FILE} is missing): run `dvc repro fetch`")
    record = read_identity(base_folder)
    for what, found, expected in (
        ("the weights", weights_sha256(base_folder), record["sha256"]),
        ("configuration or tokenizer", others_sha256(base_folder), record["others_sha256"]),
    ):
        if found == expected:
            continue
        raise UserError(
            f"{what} in {base_folder} are not what was fetched (a file is missing, cut short, changed or added): "
            "run `dvc repro fetch --force`"
        )


def require_same_base(trained_on: dict[str, str], base_folder: Path) -> None:
    """Raises UserError unless `base_folder` holds the weights that the adapter was trained on, with the same
    configuration and tokenizer.

    trained_on: the base model's record at the time of training, as `read_identity` gives it.
    """
    present = read_identity(base_folder)
    if trained_on["sha256"] != present["sha256"]:
        raise UserError(
            f"the adapter was trained on {trained_on['id']} (weights {trained_on['sha256'][:12]}), but {base_folder} "
            f"holds {present['id']} (weights {present['sha256'][:12]}): select that model in params.yaml"
        )
    others = present.get("others_sha256", "")
    if trained_on.get("others_sha256", others) != others:
        raise UserError(
            f"the adapter was trained on {trained_on['id']} with another configuration or tokenizer (hash "
            f"{trained_on['others_sha256'][:12]}) than {base_folder} holds ({others[:12]}), which would read texts "
            "differently: fetch the model that it was trained on, or train again by `dvc repro`"
        )
