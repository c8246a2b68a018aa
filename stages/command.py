"""Starts and ends a command: several processes, the working directory, --help, and errors in one sentence.

No result depends on this file, so no stage lists it in dvc.yaml.
"""

import argparse
import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from stages.distributed import is_main_process, leave_group
from stages.errors import UserError
from stages.paths import LOCK, LOCK_COPY

NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow",
}


class CheckFailedError(UserError):
    """The command found what it is there to find: it ends with status 1, where other errors may have another one."""


def run(main: Callable[[], None], distributed: bool = False, options: bool = True, error_status: int = 1) -> None:
    """Runs a command. A UserError ends it with its message and `error_status`, without a traceback.

    With several processes, only the first prints.

    Args:
        main: does the work.
        distributed: whether NPROC processes can share the work.
        options: whether `main` reads options. A command without any shows its docstring for --help.
        error_status: of any error. A command whose status 1 says something else has another.
    """
    if not options:
        refuse_options()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Printing must not fail on a terminal without UTF-8, and a log must show at once what was printed.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    if not is_main_process():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    try:
        require_root()
        keep_lock()
        if distributed and "WORLD_SIZE" not in os.environ:
            start_processes(os.environ.get("NPROC", "1"))
        main()
        leave_group()
    except CheckFailedError as error:
        end(str(error), 1)
    except UserError as error:
        end(str(error), error_status)
    except Exception as error:
        reason = no_room(error)
        if reason is None and error_status == 1:  # that of a traceback
            raise
        if reason is None:
            traceback.print_exc()
            sys.exit(error_status)
        end(f"{reason}: {error}. Make room and run `dvc repro` again; nothing else was changed", error_status)


def end(message: str, status: int) -> NoReturn:
    """Ends the command with an error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def refuse_options() -> None:
    """Shows the command's docstring for --help, and ends with status 2 for any other argument."""
    form = argparse.RawDescriptionHelpFormatter
    description = sys.modules["__main__"].__doc__
    argparse.ArgumentParser(f"python -m {module_name()}", description=description, formatter_class=form).parse_args()


def module_name() -> str:
    """The name of the running command, as `python -m` takes it."""
    spec = sys.modules["__main__"].__spec__
    assert spec, "expected `python -m stages.NAME`"
    return spec.name.removesuffix(".__main__")


def start_processes(number: str) -> None:
    """Replaces this process by `accelerate launch` of the same command with `number` processes, unless that is 1."""
    if not number.isdecimal() or int(number) < 1:
        raise UserError(f"NPROC is {number!r}; expected a number of processes, one a GPU")
    if int(number) > 1:
        launcher = ["-m", "accelerate.commands.launch", "--config_file", "accelerate.yaml", "--num_processes", number]
        # A signal takes effect when a step has ended and its state is saved. torch would kill the process after 30 s.
        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *launcher, "-m", module_name(), *sys.argv[1:]])


def require_root() -> None:
    """Raises UserError if the working directory is not the project's root. All paths are relative to it."""
    if not Path("params.yaml").is_file():
        root = Path(__file__).resolve().parents[1]
        raise UserError(
            f"{Path.cwd()} holds no params.yaml; expected the project's root as working directory: cd {root}"
        )


def keep_lock() -> None:
    """Copies dvc.lock while it is whole. DVC rewrites it between stages, and a kill at that moment tears it."""
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


def no_room(error: Exception) -> str | None:
    """The reason, if the error is a full disk. safetensors raises its own errors, with the number in the text."""
    if isinstance(error, OSError):
        return NO_ROOM.get(error.errno or 0)
    if type(error).__name__ == "SafetensorError":
        return next((reason for number, reason in NO_ROOM.items() if f"os error {number})" in str(error)), None)
    return None
