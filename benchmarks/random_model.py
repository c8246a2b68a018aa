"""Writes a base model with random weights in a published shape, to measure where the real one cannot be downloaded.

python -m benchmarks.random_model SHAPE TOKENIZER_FOLDER FOLDER
"""

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from benchmarks.common import command_parser
from stages.artifacts import replacing_folder, write_json
from stages.command import run
from stages.model.device import pick_device
from stages.model.provenance import IDENTITY_FILE, others_sha256, weights_sha256
from stages.plan.shapes import SHAPES, config_of


def write_random(shape: str, tokenizer: Path, folder: Path) -> None:
    """Writes a model folder as the fetch stage does: weights (seed 0), configuration, tokenizer, identity."""
    torch.manual_seed(0)
    with torch.device(pick_device()):
        model = AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.bfloat16)
    with replacing_folder(folder) as new:
        model.save_pretrained(new)
        for file in tokenizer.iterdir():
            if file.name.startswith(("token", "chat_template", "vocab", "merges")):
                shutil.copyfile(file, new / file.name)
        identity = {"id": f"random weights in the shape {shape}", "revision": "seed 0", "source": "random"}
        hashes = {"sha256": weights_sha256(new), "others_sha256": others_sha256(new)}
        write_json(new / IDENTITY_FILE, {**identity, "license": "none", **hashes})


def main() -> None:
    parser = command_parser()
    parser.add_argument("shape", metavar="SHAPE", choices=SHAPES, help=f"one of {', '.join(SHAPES)}")
    parser.add_argument("tokenizer", metavar="TOKENIZER_FOLDER", type=Path, help="a folder with a tokenizer's files")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the folder to write, for example models/base")
    options = parser.parse_args()
    write_random(options.shape, options.tokenizer, options.folder)


if __name__ == "__main__":
    run(main)
