"""The device that a run uses, which dtypes it computes in, and how its memory is measured."""

import contextlib
import importlib.metadata
import os
import platform
import re
import resource
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState

from stages.distributed import world_size
from stages.errors import UserError

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "scikit-learn")


def pick_device() -> torch.device:
    """The GPU, if there is one. With several processes, each gets its own GPU, and their process group is started."""
    if world_size() > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0  # an old driver still counts
        if 0 < gpus < here:
            raise UserError(f"NPROC asks for {here} processes; expected at most one for each of the {gpus} GPU(s)")
        device = {"device_id": torch.device("cuda", int(os.environ["LOCAL_RANK"]))} if gpus else {}
        PartialState(cpu=not gpus, **device)
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 natively. Emulated bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or platform.machine() in ("arm64", "aarch64")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The torch dtype for a method's `dtype`. `auto` is bfloat16 where the device computes in it, else float32.

    Raises UserError for bfloat16 on a GPU that has none.
    """
    if name == "auto":
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    if name == "bfloat16" and device.type == "cuda" and not computes_bfloat16(device):
        raise UserError(
            f"{torch.cuda.get_device_name(device)} has no bfloat16 arithmetic: set the method's dtype to auto "
            "(float32 on this GPU) or float32"
        )
    return getattr(torch, name)


@dataclass(frozen=True)
class Arriving:
    """A tensor that is copied to the CPU while the CPU does other work. arrived: the GPU's event after the copy."""

    here: torch.Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def sent(cls, tensor: torch.Tensor) -> "Arriving":
        here = tensor.detach().to("cpu", non_blocking=True)
        return cls(here, torch.cuda.current_stream().record_event() if tensor.device.type == "cuda" else None)

    def read(self) -> torch.Tensor:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.here


class OutOfMemory(contextlib.AbstractContextManager):
    """Ends the block where a GPU's memory runs out: `with OutOfMemory(): ...`. Act on it outside the block, whose
    traceback holds on to the failed pass's tensors.

    torch's allocator raises OutOfMemoryError. Where CUDA itself finds no memory, for a graph or a kernel's code, it is
    a RuntimeError.
    """

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> bool:
        by_cuda = isinstance(error, RuntimeError) and "out of memory" in str(error)
        return by_cuda or isinstance(error, torch.OutOfMemoryError)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (proc(5))


def memory_bytes(device: torch.device) -> int:
    """Bytes in use now: on a GPU those that the allocator has given out, on a CPU the process's resident size."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return status_bytes("VmRSS")


def peak_memory_bytes(device: torch.device) -> int:
    """Peak of `memory_bytes` since `reset_peak_memory`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return status_bytes("VmHWM")


def status_bytes(key: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():  # macOS reports only the peak since the process started, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def environment(device: torch.device) -> dict[str, str]:
    """Device, driver and versions, to be recorded with a measurement."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    if device.type == "cuda":
        named = {
            "device": torch.cuda.get_device_name(device),
            "cuda": str(torch.version.cuda),
            "driver": nvidia_driver(),
        }
    else:
        named = {"device": f"{cpu_name()}, {torch.get_num_threads()} threads"}
    return {"python": platform.python_version(), **versions, **named}


def nvidia_driver() -> str:
    version = Path("/proc/driver/nvidia/version")
    found = re.search(r"\d+\.\d+[.\d]*", version.read_text()) if version.exists() else None
    return found[0] if found else "unknown"


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or f"{platform.machine()} with {os.cpu_count()} cores"
