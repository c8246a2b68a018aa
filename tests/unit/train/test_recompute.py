"""Compiled layers that keep no activations for the backward pass, and compute them again there."""

import pytest
import torch

from stages.model.cuda_graphs import compile_layers
from stages.model.exactness import choose_layout
from stages.model.forward import completion_logits
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.text.batching import IGNORED
from stages.train.dataset import TrainingCollator, training_rows
from stages.train.loss import answer_loss
from tests.conftest import METHODS


@pytest.mark.slow  # compiles twice
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_layers_that_compute_again_keep_little_and_have_the_gradients_of_plain_ones(
    base_folder, prompt, examples, train_params, method
):
    rows, _ = training_rows(examples[:8], prompt, train_params.loss)
    batch = TrainingCollator.of(rows, prompt.tokenizer.pad_token_id)([row | {"row": n} for n, row in enumerate(rows)])
    kept, gradients = {}, {}
    for name in ("plain", "compiled", "computed again"):
        torch.compiler.reset()
        model = attach_adapter(load_base(METHODS[method], base_folder, torch.device("cpu")), train_params)
        with torch.no_grad():
            for number, (key, parameter) in enumerate(model.named_parameters()):
                if "lora_B" in key:
                    parameter.normal_(std=0.05, generator=torch.manual_seed(number))
        choose_layout(model, prompt)
        model.train()
        compile_layers(model, name != "plain", checkpointing=name == "computed again")
        own = {parameter.data_ptr() for parameter in model.parameters()}
        sizes: dict[int, int] = {}

        def keep(tensor, own=own, sizes=sizes):
            if tensor.data_ptr() not in own:
                sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            labels = batch["labels"][:, 1:]
            loss = answer_loss(completion_logits(model, batch, len(prompt.prefix)), labels, labels.ne(IGNORED).sum())
        loss.backward()
        kept[name] = sum(sizes.values())
        gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    compile_layers(model, False)
    for name in ("compiled", "computed again"):
        assert torch.allclose(gradients[name], gradients["plain"], atol=1e-6), name
    assert kept["computed again"] < kept["compiled"] / 4
