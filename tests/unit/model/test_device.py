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
