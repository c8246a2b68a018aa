"""Losses that don't reach every adapter."""

import torch

from stages.train.captured_gradients import CapturedGradients


def test_an_adapter_that_the_loss_does_not_reach_has_the_gradient_zero():
    used, unused = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    captured = CapturedGradients.__new__(CapturedGradients)  # without a GPU's stream
    captured.loss_of = lambda inputs: (used * inputs["x"]).sum()
    captured.parameters, captured.gradients = [used, unused], [torch.ones(3), torch.ones(3)]
    loss = captured.loss_and_gradients({"x": torch.tensor([1.0, 2.0, 3.0])})
    assert loss == 6
    assert not loss.requires_grad
    assert captured.gradients[0].tolist() == [2.0, 3.0, 4.0]  # added up
    assert captured.gradients[1].tolist() == [1.0, 1.0, 1.0]
