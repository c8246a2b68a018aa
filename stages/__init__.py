"""A DVC pipeline that fine-tunes a language model with QLoRA to tell fraud texts from others. One package a stage.

Here stands what every stage shares at its start: the environment, and how an error reaches its user.
"""

import contextlib
import errno
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

if sys.version_info < (3, 11) or not all(map(importlib.util.find_spec, ("torch", "transformers", "yaml"))):
    sys.exit(
        f"error: {sys.executable} (Python {sys.version.split()[0]}) is not this project's, or lacks its packages: run "
        "`make repro`, or `source .venv/bin/activate` before dvc and python (`make install` makes .venv)"
    )

# Nothing that a run does is reported to anybody. (DVC's own switch is core.analytics in .dvc/config.)
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# The tokenizer's threads would fight torch's for the same cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# bitsandbytes tells of an optional kernel at every start, and of a cast at every layer of every int8 pass.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


LOCK = Path("dvc.lock")
LOCK_COPY = Path("runs/dvc.lock")


class UserError(ValueError):
    """Something that the user can mend; the message says what was found, what was expected and what to do."""


NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow",
}


def run(main: Callable[[], None], spread: bool = False) -> None:
    """Runs a stage; a UserError ends it with its message and status 1, without a traceback. Of several processes the
    first alone prints. spread: the stage's work can be shared by as many processes as the environment's NPROC says."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal that isn't UTF-8 ends no stage
    if not is_main_process():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    try:
        require_root()
        keep_lock()
        if spread and "WORLD_SIZE" not in os.environ:
            start_processes(os.environ.get("NPROC", "1"))
        main()
        leave_others()
    except UserError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        reason = no_room(error)
        if reason is None:
            raise
        sys.exit(f"error: {reason}: {error}. Make room and run `dvc repro` again; nothing else was changed")


def require_root() -> None:
    """Raises UserError where the working directory is not the project's root, which all paths are relative to."""
    if not Path("params.yaml").is_file():
        root = Path(__file__).resolve().parents[1]
        raise UserError(
            f"{Path.cwd()} holds no params.yaml; expected the project's root as working directory: cd {root}"
        )


def keep_lock() -> None:
    """Copies dvc.lock, which is whole while a stage runs: DVC rewrites it between stages, and a kill there tears it."""
    if "DVC_STAGE" not in os.environ or not is_main_process():
        return
    with contextlib.suppress(OSError):
        LOCK_COPY.parent.mkdir(exist_ok=True)
        if LOCK.is_file():
            written = LOCK_COPY.with_name(f".dvc.lock.{os.getpid()}")
            written.write_bytes(LOCK.read_bytes())
            written.replace(LOCK_COPY)
        else:
            LOCK_COPY.unlink(missing_ok=True)


def start_processes(number: str) -> None:
    """Becomes `accelerate launch` of this stage by so many processes; returns where one is asked for."""
    if not number.isdecimal() or int(number) < 1:
        raise UserError(f"NPROC is {number!r}; expected a number of processes, one a GPU")
    if int(number) > 1:
        module = sys.modules["__main__"].__spec__.name.removesuffix(".__main__")
        launcher = ["-m", "accelerate.commands.launch", "--config_file", "accelerate.yaml", "--num_processes", number]
        # A signal takes effect when a step has ended and its state is saved; torch would kill after 30 s.
        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *launcher, "-m", module, *sys.argv[1:]])


def no_room(error: Exception) -> str | None:
    """The reason, where an error says that the disk is full. safetensors has errors of its own, which hold a number."""
    if isinstance(error, OSError):
        return NO_ROOM.get(error.errno)
    if type(error).__name__ == "SafetensorError":
        return next((reason for number, reason in NO_ROOM.items() if f"os error {number})" in str(error)), None)
    return None


def world_size() -> int:
    """How many processes `accelerate launch` or torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """The one that writes."""
    return rank() == 0


def leave_others() -> None:
    """Ends the talk of several processes, where there was any: torch warns of a process that goes without."""
    if world_size() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def wait_for_all() -> None:
    """Returns when all processes are here."""
    if world_size() > 1:
        import torch.distributed

        torch.distributed.barrier()
