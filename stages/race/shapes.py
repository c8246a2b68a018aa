"""Base models of known architecture with random weights, for measuring where real ones can't be had.

python -m stages.race.shapes SHAPE TOKENIZER_FOLDER FOLDER
"""

import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from stages import UserError, run
from stages.model.device import pick_device
from stages.model.identity import IDENTITY_FILE, others_sha256, weights_sha256
from stages.report import replacing_folder, write_json

# From the published config.json of Qwen2(.5)-…-Instruct.
SHAPES = {
    "qwen2-0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "qwen2-1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
    "qwen2-7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
}
KEY_VALUE_HEADS = {"qwen2-0.5b": 2, "qwen2-1.5b": 2, "qwen2-7b": 4}
VOCABULARY = {"qwen2-0.5b": 151936, "qwen2-1.5b": 151936, "qwen2-7b": 152064}


def config_of(shape: str) -> Qwen2Config:
    """Raises UserError for a name that is not in SHAPES."""
    if shape not in SHAPES:
        raise UserError(f"shape: found {shape!r}; expected one of {', '.join(SHAPES)}")
    return Qwen2Config(
        **SHAPES[shape],
        num_key_value_heads=KEY_VALUE_HEADS[shape],
        vocab_size=VOCABULARY[shape],
        tie_word_embeddings=shape != "qwen2-7b",
        max_position_embeddings=32768,
        rope_theta=1e6,
        dtype="bfloat16",
    )


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


if __name__ == "__main__":
    run(lambda: write_random(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
