"""The bytes of the weights, and the error of quantization."""

import bitsandbytes as bnb
import pytest
import torch
from safetensors.torch import load_file

from stages.benchmark.weights import quantization_error, weight_bytes
from stages.model.load import load_base
from tests.conftest import METHODS

CPU = torch.device("cpu")


def test_weight_bytes_are_exact(base_folder):
    stored = load_file(base_folder / "model.safetensors")
    plain = sum(tensor.numel() * 4 for tensor in stored.values())  # the tied head counts once
    linear = sum(tensor.numel() for name, tensor in stored.items() if "proj.weight" in name)
    assert weight_bytes(load_base(METHODS["lora"], base_folder, CPU)) == plain
    blocks, layers = linear // 64, 14
    nf4 = weight_bytes(load_base(METHODS["qlora"], base_folder, CPU))
    # half a byte a weight, 4 bytes a block of 64, 64 bytes of code table and a short description a layer
    exact = plain - 4 * linear + linear // 2 + 4 * blocks + 64 * layers
    assert exact < nf4 < exact + 200 * layers
    # double quantization pays 1 byte instead of 4 a block, and a table of 256 floats a layer: dear in so small a model
    assert (
        weight_bytes(load_base(METHODS["qlora-dq"], base_folder, CPU)) - nf4 < 1100 * layers - 3 * blocks + 100 * layers
    )


def test_quantization_error_is_what_it_says(base_folder):
    model = load_base(METHODS["qlora"], base_folder, CPU)
    stored = load_file(base_folder / "model.safetensors")
    errors = []
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = stored[f"{name}.weight"].float()
            codes, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=False)
            errors.append(((weight - bnb.functional.dequantize_4bit(codes, state)).norm() / weight.norm()).item())
    assert quantization_error(model, base_folder) == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert 0.05 < sum(errors) / len(errors) < 0.15
    assert quantization_error(load_base(METHODS["lora"], base_folder, CPU), base_folder) == 0
    assert 0 < quantization_error(load_base(METHODS["lora-int8"], base_folder, CPU), base_folder) < 0.02
