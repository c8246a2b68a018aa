"""What passes by CUDA graphs leave behind, without a GPU. Graphs themselves: tests/unit/train/test_cuda_graphs.py."""

import contextlib
import gc
import weakref

import pytest
import torch

from stages.model.cuda_graphs import CapturedPasses, no_collection, waits_for_gpu
from stages.model.load import load_base
from tests.conftest import METHODS
from tests.unit.model.families import tiny
from tests.unit.model.helpers import CPU


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


def test_no_garbage_is_collected_while_a_pool_is_in_use():
    assert gc.isenabled()
    with contextlib.suppress(torch.OutOfMemoryError), no_collection():
        assert not gc.isenabled()
        raise torch.OutOfMemoryError("full")
    assert gc.isenabled()
    gc.disable()
    with no_collection():
        pass
    assert not gc.isenabled()
    gc.enable()


@pytest.mark.parametrize(
    ("dtype", "capability", "waits"),
    [(torch.bfloat16, (9, 0), False), (torch.bfloat16, (8, 9), True), (torch.float16, (9, 0), True)],
)
def test_grouped_products_of_experts_wait_for_most_gpus(tokenizer, tmp_path, monkeypatch, dtype, capability, waits):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    model = load_base(METHODS["lora"], tiny("Mixtral", tokenizer, tmp_path), CPU).to(dtype)
    assert waits_for_gpu(model) == ("its experts need bfloat16 and compute capability 9 or 10" if waits else None)


@pytest.mark.parametrize(
    ("method", "waits"), [("lora", None), ("qlora", None), ("lora-int8", "its weights have 8 bits")]
)
def test_layers_of_8_bits_wait_for_the_gpu(base_folder, method, waits):
    assert waits_for_gpu(load_base(METHODS[method], base_folder, CPU)) == waits


def test_convolutions_are_no_experts(tokenizer, tmp_path):
    model = load_base(METHODS["lora"], tiny("LFM2", tokenizer, tmp_path), CPU)
    assert any(parameter.ndim == 3 for parameter in model.parameters())
    assert waits_for_gpu(model) is None
