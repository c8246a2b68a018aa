"""Which base model an adapter belongs to."""

from pathlib import Path

from stages import UserError
from stages.report import read_json

IDENTITY_FILE = "base.json"  # in models/base: id, revision, source, license, sha256 of the weights


def read_identity(base_folder: Path) -> dict[str, str]:
    return read_json(base_folder / IDENTITY_FILE)


def require_same_base(trained_on: dict[str, str], base_folder: Path) -> None:
    """Raises UserError unless `base_folder` holds the weights that the adapter was trained on."""
    present = read_identity(base_folder)
    if trained_on["sha256"] != present["sha256"]:
        raise UserError(
            f"the adapter was trained on {trained_on['id']} (weights {trained_on['sha256'][:12]}), but {base_folder} "
            f"holds {present['id']} (weights {present['sha256'][:12]}): select that model in params.yaml"
        )
