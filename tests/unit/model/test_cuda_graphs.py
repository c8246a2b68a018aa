"""What passes by CUDA graphs leave behind, without a GPU. Graphs themselves: tests/unit/train/test_cuda_graphs.py."""

import gc
import weakref

import pytest
import torch

from stages.model.cuda_graphs import CapturedPasses


class Pool:
    """In place of torch's. Python frees one while another is in use: torch ends the process."""


class Owner:
    def __init__(self):
        self.captured = CapturedPasses(self.compute, torch.device("cpu"))  # a reference cycle

    def compute(self, inputs):
        raise NotImplementedError


@pytest.fixture
def no_gpu(monkeypatch):
    for name, stand_in in {
        "Stream": lambda device: None, "synchronize": lambda: None, "empty_cache": lambda: None, "MemPool": Pool,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("next_one", [Owner, "forget"])
def test_pools_of_passes_that_are_gone_are_freed_before_the_next_one_is_used(no_gpu, next_one):
    other = Owner()
    gone = Owner()
    pool = weakref.ref(gone.captured.pool)
    del gone
    assert pool() is not None  # until garbage is collected
    other.captured.forget() if next_one == "forget" else next_one()
    assert pool() is None
