"""Compiled layers that keep no activations for the backward pass, and compute them again there."""

import dataclasses
import gc
import weakref

import pytest
import torch

from stages.model import cuda_graphs, fused_lora
from stages.model.cuda_graphs import CapturedPasses, compile_layers
from stages.model.exactness import choose_layout
from stages.model.forward import completion_logits
from stages.model.fused_products import WholeWeights
from stages.model.load import load_base
from stages.model.lora import attach_adapter
from stages.text.batching import IGNORED
from stages.train.dataset import TrainingCollator, training_rows
from stages.train.loss import answer_loss
from stages.train.passes import Passes, is_random
from tests.conftest import METHODS
from tests.unit.model.families import tiny
from tests.unit.train.trainers import trainer_for

CPU = torch.device("cpu")


@pytest.fixture
def batch(prompt, examples, train_params):
    rows, _ = training_rows(examples[:8], prompt, train_params.loss)
    return TrainingCollator.of(rows, prompt.tokenizer.pad_token_id)([row | {"row": n} for n, row in enumerate(rows)])


def in_training(base, method, train, prompt):
    """A model in training mode, with adapters of random numbers."""
    model = attach_adapter(load_base(METHODS[method], base, CPU), train)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(model.named_parameters()):
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.manual_seed(number))
    choose_layout(model, prompt)
    return model.train()


def frozen_memory(layer) -> list[torch.Tensor]:
    weights = layer.fused.weights
    whole = [weights.weight] if isinstance(weights, WholeWeights) else [*weights.frozen, weights.code]
    return [*whole, weights.beside]


@pytest.mark.slow  # compiles twice
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_layers_that_compute_again_keep_little_and_have_the_gradients_of_plain_ones(
    base_folder, prompt, batch, train_params, method, fused
):
    kept, gradients = {}, {}
    torch.compiler.reset()
    for name in ("plain", "compiled", "computed again"):
        model = in_training(base_folder, method, train_params, prompt)
        layers = fused_lora.FusedAdapters(model).layers if fused and name != "plain" else []
        compile_layers(model, name != "plain", checkpointing=name == "computed again")
        frozen = [tensor for layer in layers for tensor in frozen_memory(layer)]
        own = {tensor.data_ptr() for tensor in (*frozen, *model.parameters())}
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


@pytest.mark.parametrize(
    ("family", "random"), [("Qwen2, Qwen2.5", False), ("GPT-2", True), ("OPT", True), ("Seed-OSS", True)]
)
def test_dropout_of_the_base_model_is_seen_and_drawn_again_as_it_was(
    tokenizer, prompt, batch, train_params, tmp_path, family, random
):
    train = dataclasses.replace(train_params, lora_dropout=0.0)
    model = in_training(tiny(family, tokenizer, tmp_path), "lora", train, prompt)
    assert is_random(model) == random

    def gradients():
        torch.manual_seed(7)
        logits = completion_logits(model, batch, len(prompt.prefix))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.cat([each.flatten() for each in torch.autograd.grad(logits.square().sum(), trained)])

    kept = gradients()
    Passes(model, dataclasses.replace(train, gradient_checkpointing=True), prompt)
    assert model.is_activation_checkpointing
    assert torch.allclose(gradients(), kept, rtol=1e-4, atol=1e-5 * kept.abs().max())


def test_dropout_of_adapters_is_seen(base_folder, train_params):
    model = load_base(METHODS["lora"], base_folder, CPU)
    assert is_random(attach_adapter(model, dataclasses.replace(train_params, lora_dropout=0.1)))


class Gpu:
    """What stands for the head of a model on a GPU."""

    device = torch.device("cuda")


def passes_on_a_gpu(base_folder, prompt, examples, train, folder, monkeypatch, method="lora"):
    """Passes that take their model to be on a GPU, and what they capture to be captured."""
    monkeypatch.setattr(CapturedPasses, "__init__", lambda self, compute, device: setattr(self, "compute", compute))
    monkeypatch.setattr("stages.train.passes.can_compile", lambda: True)
    monkeypatch.setattr("stages.train.passes.compile_layers", lambda *_: None)
    passes = trainer_for(base_folder, prompt, examples, train, folder, METHODS[method]).passes
    passes.head = Gpu()
    passes.prepare(checkpointing=False)
    return passes


def test_fused_layers_stay_when_auto_changes_to_memory(base_folder, prompt, examples, train, tmp_path, monkeypatch):
    """To fuse them again, memory would have to hold the weights twice."""
    auto = dataclasses.replace(train, profile="auto", lora_dropout=0.0)
    passes = passes_on_a_gpu(base_folder, prompt, examples, auto, tmp_path, monkeypatch)
    fused = passes.fused
    assert fused.layers
    monkeypatch.setattr(fused_lora.FusedLayers, "__init__", None)
    passes.save_memory()
    assert passes.fused is fused
    assert passes.captured is not None
    assert not passes.model.is_activation_checkpointing
    monkeypatch.setattr("stages.train.passes.can_compile", lambda: False)
    passes.prepare(checkpointing=True)
    assert (passes.fused, passes.captured) == (None, None)
    assert passes.model.is_activation_checkpointing


@pytest.mark.parametrize(("dropout", "captured"), [(0.0, True), (0.2, False)])
def test_graphs_are_gone_before_memory_is_asked_for_again(
    base_folder, prompt, examples, train, tmp_path, monkeypatch, dropout, captured
):
    auto = dataclasses.replace(train, profile="auto", lora_dropout=dropout)
    passes = passes_on_a_gpu(base_folder, prompt, examples, auto, tmp_path, monkeypatch)
    earlier, alive = weakref.ref(passes.captured), []
    prepare = passes.prepare
    passes.prepare = lambda checkpointing: (alive.append(earlier() is not None), prepare(checkpointing))
    gc.disable()
    passes.save_memory()
    gc.enable()
    assert alive == [False]
    assert (passes.captured is not None) == captured  # with dropout, plain passes follow


def test_what_waits_for_the_gpu_is_not_captured(base_folder, prompt, examples, train, tmp_path, monkeypatch, capsys):
    speed = dataclasses.replace(train, profile="speed", lora_dropout=0.0)
    passes = passes_on_a_gpu(base_folder, prompt, examples, speed, tmp_path, monkeypatch, "lora-int8")
    assert passes.captured is None
    assert "captures nothing, since its weights have 8 bits: passes are plain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "found", "triton", "expected"),
    [
        ({}, ["gcc"], True, True),
        ({}, ["clang"], True, True),
        ({}, ["cc"], True, False),
        ({}, ["gcc"], False, False),
        ({"CC": "mine"}, ["gcc"], True, False),
        ({"CC": "mine"}, ["mine"], True, True),
    ],
)
def test_compiling_needs_what_triton_looks_for(monkeypatch, tmp_path, environment, found, triton, expected):
    monkeypatch.delenv("CC", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cuda_graphs, "has_triton", lambda: triton)
    monkeypatch.setattr(cuda_graphs.shutil, "which", lambda name: name in found)
    monkeypatch.setattr(cuda_graphs.sysconfig, "get_path", lambda *_: str(tmp_path))
    assert not cuda_graphs.can_compile()
    (tmp_path / "Python.h").touch()
    assert cuda_graphs.can_compile() == expected
