"""Gradients that lie in one tensor, as those of CUDA graphs do: here with plain passes, on a CPU."""

import copy
import dataclasses

import pytest
import torch

from stages.model.cuda_graphs import CapturedPasses
from stages.train.captured_gradients import CapturedGradients
from stages.train.gradients import Gradients


@pytest.fixture
def without_graphs(monkeypatch):
    monkeypatch.setattr(CapturedPasses, "__init__", lambda self, compute, device: setattr(self, "inputs", {"any": {}}))
    monkeypatch.setattr(CapturedPasses, "__call__", lambda self, inputs: self.loss_and_gradients(inputs))


def test_an_adapter_that_the_loss_does_not_reach_has_the_gradient_zero(without_graphs):
    used, unused = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    captured = CapturedGradients(lambda inputs: (used * inputs["x"]).sum(), [used, unused])
    used.grad = torch.ones(3)
    loss = captured({"x": torch.tensor([1.0, 2.0, 3.0])})
    assert loss == 6
    assert not loss.requires_grad
    assert used.grad.tolist() == [2.0, 3.0, 4.0]  # added up
    assert unused.grad.tolist() == [0.0, 0.0, 0.0]
    assert captured.flat.tolist() == [2.0, 3.0, 4.0, 0.0, 0.0, 0.0]
    captured.zero()
    assert used.grad.tolist() == [0.0, 0.0, 0.0]
    assert used.grad.data_ptr() == captured.flat.data_ptr()


def test_several_processes_add_nothing_to_an_adapter_that_the_loss_does_not_reach(monkeypatch):
    used, unused = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    (used * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: flat.mul_(2))
    Gradients([used, unused]).add_over_processes()
    assert used.grad.tolist() == [2.0, 4.0, 6.0]
    assert unused.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("max_norm", [0.5, 1e6, float("inf")])
def test_gradients_are_clipped_as_torch_does(without_graphs, max_norm):
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=torch.manual_seed(3))) for shape in ((4, 3), (5,))]
    others = copy.deepcopy(parameters)
    captured = CapturedGradients(lambda inputs: sum((p**3).sum() for p in parameters), parameters)
    captured({})
    sum((p**3).sum() for p in others).backward()
    norm = torch.nn.utils.clip_grad_norm_(others, max_norm)
    assert captured.clip(max_norm).item() == pytest.approx(norm.item(), rel=1e-6)
    for one, other in zip(parameters, others, strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-6)


@pytest.mark.parametrize("runs_out", [False, True])
def test_a_training_takes_the_steps_of_plain_passes(start, train, tmp_path, without_graphs, runs_out):
    """With accumulated batches, and where memory runs out at a step's second batch."""
    params = dataclasses.replace(train, lora_dropout=0.0, save_steps=100, max_grad_norm=0.3)
    losses = {}
    for name in ("plain", "captured"):
        trainer = start(tmp_path / name, params)
        passes = trainer.passes
        if name == "captured":
            passes.captured = CapturedGradients(passes.packed_loss, passes.parameters)
            if runs_out:
                run_out_at(passes, 4)
        losses[name] = found = []
        trainer.nan_guard.note_loss = lambda loss, step, rows, found=found: found.append(loss.item())
        trainer.train_to_end(None)
    assert trainer.micro_batches.least == 1 + runs_out
    assert len(losses["plain"]) == 20
    assert losses["plain"][-1] < losses["plain"][0] - 0.1  # something was learned
    assert losses["captured"] == pytest.approx(losses["plain"], abs=2e-5)


def run_out_at(passes, number: int) -> None:
    """Lets memory run out once, after the pass of this number has added its gradients."""
    calls, run = [], passes.captured.loss_and_gradients

    def loss_and_gradients(inputs):
        calls.append(inputs)
        loss = run(inputs)
        if len(calls) == number:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss

    passes.captured.loss_and_gradients, passes.captured.forget = loss_and_gradients, lambda: None


def test_the_trainer_visits_trained_parameters_alone(start, train, tmp_path, monkeypatch):
    """The model's zero_grad and its parameters visit every module, which takes longer than small steps."""
    trainer = start(tmp_path / "run", dataclasses.replace(train, num_train_epochs=1, save_steps=100, eval_steps=100))
    visits = []
    walk = torch.nn.Module.named_modules

    def counted(self, *arguments, **named):
        visits.append(trainer.state.global_step)
        return walk(self, *arguments, **named)

    monkeypatch.setattr(torch.nn.Module, "named_modules", counted)
    trainer.train_to_end(None)
    assert trainer.state.global_step == 4
    assert not [step for step in visits if 0 < step < 3]
