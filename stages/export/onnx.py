"""Export of the classifier for onnxruntime on CPUs."""

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from stages.errors import UserError
from stages.export.classifier import write_classifier
from stages.export.merge import Source

MODEL = "model.onnx"
OPSET = 18
BLOCK = 32  # weights with a common scale in int8


class Logits(nn.Module):
    """The classifier as a function of two tensors."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


def write_onnx(folder: Path, source: Source, dtype: str) -> dict[str, Any]:
    """Writes the graph, the tokenizer and the configuration, and returns what export.json says of them.

    Args:
        folder: of the export.
        source: the trained model.
        dtype: float32, or int8: weights of matrix products in 8 bits, a scale for each block of BLOCK.
    """
    require_packages("onnx", "onnxscript", "onnxruntime")
    plain = folder / "plain"
    plain.mkdir()
    record = write_classifier(plain, source, "float32")
    model = AutoModelForSequenceClassification.from_pretrained(
        plain, attn_implementation="eager", trust_remote_code=False
    ).eval()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(plain / name, folder / name)
    shutil.rmtree(plain)
    write_graph(folder / MODEL, model)
    if dtype == "int8":
        quantize(folder)
    return record


def require_packages(*names: str) -> None:
    """Raises UserError for packages that aren't installed."""
    import importlib.util

    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} not installed; expected for this kind of export: "
            "pip install -r requirements-export.txt"
        )


def write_graph(path: Path, model: nn.Module) -> None:
    """Writes a graph whose batch size and length are free, with the weights in a file beside it."""
    ids, mask = torch.ones(2, 16, dtype=torch.long), torch.ones(2, 16, dtype=torch.long)  # one tensor were one input
    free = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits(model),
            (ids, mask),
            path,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=(free, free),
            external_data=True,
            verbose=False,
        )


def quantize(folder: Path) -> None:
    """Stores the weights of matrix products but the head's in 8 bits, with a scale for each BLOCK of inputs, in place.

    Activations stay in float32: Gemma's have outliers beside which 8 bits leave nothing of the other values.
    """
    import onnx
    from onnxruntime.quantization import matmul_nbits_quantizer as library

    logging.getLogger().setLevel(logging.WARNING)  # the import sets it to INFO, which tells of each node
    whole = onnx.load(folder / MODEL)
    settings = library.DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=1, bits=8)
    quantizer = library.MatMulNBitsQuantizer(whole, algo_config=settings, nodes_to_exclude=[last_product(whole)])
    quantizer.process()
    for file in folder.glob(f"{MODEL}*"):
        file.unlink()
    onnx.save(quantizer.model.model, folder / MODEL, save_as_external_data=True, location=f"{MODEL}.data")


def last_product(model: Any) -> str:
    """The name of the node that multiplies by the head."""
    return [node.name for node in model.graph.node if node.op_type == "MatMul"][-1]


def scale_graph(folder: Path, slope: float) -> None:
    """Multiplies the logits of a written graph."""
    import onnx
    from onnx import helper

    model = onnx.load(folder / MODEL, load_external_data=False)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["logits_as_trained" if name == "logits" else name for name in node.output]
    graph.initializer.append(helper.make_tensor("slope", onnx.TensorProto.FLOAT, [], [slope]))
    graph.node.append(helper.make_node("Mul", ["logits_as_trained", "slope"], ["logits"], name="scale_logits"))
    onnx.save(model, folder / MODEL)
