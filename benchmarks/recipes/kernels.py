"""Where a recipe's time goes: milliseconds of a step's kernels by kind."""

import time
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from stages.model.device import synchronize

STEPS, LONGEST = 6, 4.0  # steps that are profiled, or as many as begin within so many seconds

# Kinds, with parts of the names of their kernels (on a CPU, of torch's operators) in small letters. The first that
# fits is taken: names of compiled kernels list whatever they replace, and those of attention what it is built of.
KINDS = (
    ("products", ("triton_tem",)),
    ("element-wise, compiled", ("triton_",)),
    ("attention", ("flash", "fmha", "attention")),
    ("unpacking", ("dequantize", "unpack_numbers")),
    ("products", ("gemm", "gemv", "nvjet", "cutlass", "splitk", "aten::mm", "addmm", "bmm", "mkldnn_linear")),
    ("copies", ("copy", "memcpy", "catarray", "aten::cat")),
)


def kind_of(name: str) -> str:
    """The kind of a kernel, one of KINDS or "other"."""
    small = name.lower()
    return next((kind for kind, parts in KINDS if any(part in small for part in parts)), "other")


class KernelProfile:
    """Profiles a few steps.

    Attributes:
        found: once they are done, milliseconds a step by kind, and `launched`, the kernels of a step. On a CPU these
            are torch's operators, each without those that it calls.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.steps, self.began = 0, 0.0
        self.profiler: profile | None = None
        self.found: dict[str, float] | None = None

    def count(self) -> bool:
        """To be called after each step. The first call starts the profile. Returns whether it is done."""
        if self.found:
            return True
        if self.profiler is None:
            activity = ProfilerActivity.CUDA if self.device.type == "cuda" else ProfilerActivity.CPU
            self.profiler = profile(activities=[activity])
            self.profiler.start()
            self.began = time.perf_counter()
            return False
        self.steps += 1
        if self.steps < STEPS and time.perf_counter() - self.began < LONGEST:
            return False
        synchronize(self.device)
        self.profiler.stop()
        self.found = self.by_kind(self.profiler)
        return True

    def by_kind(self, profiler: profile) -> dict[str, float]:
        gpu = self.device.type == "cuda"
        milliseconds: Counter[str] = Counter()
        launched = 0
        for event in profiler.key_averages():
            if (gpu and event.device_type != torch.autograd.DeviceType.CUDA) or event.is_user_annotation:
                continue  # the CPU's calls, and ranges that contain kernels
            microseconds = event.self_device_time_total if gpu else event.self_cpu_time_total
            milliseconds[kind_of(event.key)] += microseconds / 1e3
            launched += event.count
        figures = {kind: round(value / self.steps, 3) for kind, value in milliseconds.most_common()}
        return figures | {"launched": round(launched / self.steps)}
