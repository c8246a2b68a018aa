"""The forward pass: what it keeps for the backward one, and that a layer compiles whole."""

import pytest
import torch

from stages.model.forward import completion_logits
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from tests.conftest import METHODS
from tests.unit.model.helpers import CPU


def test_int8_keeps_no_input_for_frozen_weights(base_folder, train_params):
    """It would stay through the whole forward pass, gradient checkpointing or not."""
    model = attach_adapter(load_base(METHODS["lora-int8"], base_folder, CPU), train_params).train()
    batch = {"input_ids": torch.arange(24).reshape(2, 12), "positions": torch.full((2, 1), 11)}
    logits = completion_logits(model, batch)
    products = [node for node in nodes(logits.grad_fn) if type(node).__name__.startswith("MatMul8bit")]
    assert len(products) >= 2 * 7 - 3  # no gradient reaches the very first q, k and v
    assert all(node.A is None for node in products)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("method", ["lora", "qlora", "lora-int8"])
def test_a_compiled_layer_is_one_graph(base_folder, train_params, method):
    """A break would undo what it is compiled for."""
    model = attach_adapter(load_base(METHODS[method], base_folder, CPU), train_params).train()
    batch = {"input_ids": torch.arange(24).reshape(2, 12), "positions": torch.full((2, 1), 11)}
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for layer in model.get_base_model().model.layers:
        layer.compile(dynamic=True, backend="eager")
    completion_logits(model, batch).sum().backward()
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    torch._dynamo.reset()


def nodes(root):
    """All of an autograd graph."""
    seen, todo = set(), [root]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    return seen
