"""The dtype that a device computes in."""

import pytest
import torch

from stages.errors import UserError
from stages.model import device as device_module


def test_a_gpu_without_bfloat16_says_which_dtype_to_take(monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(device_module, "computes_bfloat16", lambda device: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert device_module.pick_dtype("auto", gpu) == torch.float32
    with pytest.raises(UserError, match="Tesla T4 has no bfloat16 arithmetic: set the method's dtype to auto"):
        device_module.pick_dtype("bfloat16", gpu)


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (torch.OutOfMemoryError("full"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (UserError("out of memory"), False),
    ],
)
def test_memory_that_runs_out_is_told_from_other_errors(error, ends):
    found = None
    try:
        with device_module.OutOfMemory():
            raise error
    except Exception as other:
        found = other
    assert found is (None if ends else error)
