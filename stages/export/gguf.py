"""Export for llama.cpp, by its own converter and quantizer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from stages.errors import UserError
from stages.export.causal import SCORING, write_merged
from stages.export.merge import Source
from stages.export.onnx import require_packages

SOURCES = "LLAMA_CPP"  # names a folder with llama.cpp's sources, as the source package of llama-cpp-python holds them
CONVERTER = "convert_hf_to_gguf.py"
# sentencepiece's types of pieces
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def write_gguf(folder: Path, source: Source, dtype: str) -> dict[str, Any]:
    """Writes a GGUF file and the tokenizer that holds the prompt, and returns what export.json says of them.

    Args:
        folder: of the export.
        source: the trained model.
        dtype: q8_0 or q4_k_m.
    """
    converter = find_converter()
    require_packages("llama_cpp", "sentencepiece")
    plain = folder / "plain"
    plain.mkdir()
    record = write_merged(plain, source, "float32")
    shutil.move(plain / SCORING, folder / SCORING)
    write_pieces(plain)
    file = folder / f"model-{dtype}.gguf"
    if dtype == "q8_0":
        convert(converter, plain, file, dtype)
    else:
        convert(converter, plain, plain / "whole.gguf", "f32")
        quantize(plain / "whole.gguf", file)
    shutil.rmtree(plain)
    return record


def find_converter() -> Path:
    """llama.cpp's converter. Raises UserError if the environment does not say where its sources are."""
    file = Path(os.environ.get(SOURCES, "llama.cpp")) / CONVERTER
    if not file.is_file():
        raise UserError(
            f"{file} is missing; expected llama.cpp's converter: unpack the source package of llama-cpp-python, and "
            f"set {SOURCES} to its folder vendor/llama.cpp (docs/export.md)"
        )
    return file


def convert(converter: Path, model: Path, file: Path, outtype: str) -> None:
    """Runs the converter.

    Args:
        converter: its file.
        model: a folder of transformers.
        file: what is written.
        outtype: f32 or q8_0.
    """
    command = [sys.executable, converter, model, "--outfile", file, "--outtype", outtype]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode or not file.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"{CONVERTER} failed: {last}; expected a GGUF file: its release may not know this base model, so choose "
            "another kind or another release"
        )


def quantize(whole: Path, file: Path) -> None:
    """Writes Q4_K_M by llama.cpp's own quantizer."""
    import ctypes

    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    if llama_cpp.llama_model_quantize(str(whole).encode(), str(file).encode(), ctypes.byref(params)):
        raise UserError(f"llama.cpp could not quantize {whole.name} to Q4_K_M; expected a file: choose --dtype q8_0")


def write_pieces(folder: Path) -> None:
    """Writes tokenizer.model, which the converter reads, for a tokenizer that was sentencepiece's and lost it.

    A piece is merged the earlier the higher its score is, so the rank of its merge gives the score.
    """
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = tokenizer["model"]
    if model["type"] != "BPE" or not model.get("byte_fallback") or (folder / "tokenizer.model").is_file():
        return
    from sentencepiece import sentencepiece_model_pb2 as format

    rank: dict[str, int] = {}
    for number, merge in enumerate(model["merges"]):
        rank.setdefault("".join(merge if isinstance(merge, list) else merge.split(" ")), number)
    added = {token["content"]: CONTROL if token["special"] else USER_DEFINED for token in tokenizer["added_tokens"]}
    pieces = format.ModelProto()
    pieces.trainer_spec.model_type = format.TrainerSpec.BPE
    pieces.trainer_spec.byte_fallback = True
    names = sorted(model["vocab"], key=model["vocab"].__getitem__)
    for name in names:
        byte = len(name) == 6 and name.startswith("<0x") and name.endswith(">")
        kind = BYTE if byte else UNKNOWN if name == model["unk_token"] else added.get(name, NORMAL)
        pieces.pieces.add(piece=name, score=-float(rank.get(name, len(rank))), type=kind)
    pieces.trainer_spec.unk_piece = model["unk_token"]
    pieces.trainer_spec.unk_id = model["vocab"][model["unk_token"]]
    pieces.trainer_spec.vocab_size = len(names)
    pieces.normalizer_spec.add_dummy_prefix = False
    pieces.normalizer_spec.remove_extra_whitespaces = False
    (folder / "tokenizer.model").write_bytes(pieces.SerializeToString())
