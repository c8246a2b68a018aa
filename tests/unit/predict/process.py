"""predict as a process of its own, what it is fed with, and what it leaves."""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from stages.command import run
from stages.predict.__main__ import main
from tests.conftest import ROOT

SIZE = 16  # rows of a window in most tests; the child that predicts inherits it


class Started:
    """predict in a fork of this process, which has the libraries loaded; its streams and its signals are real.

    Args:
        arguments: of the command line.
        folder: the working directory.
        stdin, stdout: file descriptors; None: nothing to read, and a file that `out` holds at the end.
    """

    def __init__(self, folder: Path, *arguments: object, stdin: int | None = None, stdout: int | None = None):
        self.written, self.errors = (os.memfd_create(name) for name in ("out", "err"))
        self.pid = os.fork()
        if self.pid:
            return
        status = 99
        try:
            os.setsid()
            empty = os.open(os.devnull, os.O_RDONLY)
            os.dup2(empty if stdin is None else stdin, 0)
            os.dup2(self.written if stdout is None else stdout, 1)
            os.dup2(self.errors, 2)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # a pipe that feeds this process ends when all have closed it
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode, closefd=False) for fd, mode in enumerate("rww"))
            os.chdir(folder)
            sys.argv = ["predict", *map(str, arguments)]
            signal.signal(signal.SIGINT, signal.default_int_handler)
            run(main)
            status = 0
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def __del__(self):
        os.close(self.written)
        os.close(self.errors)

    @property
    def out(self) -> bytes:
        return os.pread(self.written, 1 << 26, 0)

    @property
    def err(self) -> str:
        return os.pread(self.errors, 1 << 26, 0).decode()

    @property
    def said(self) -> str:
        return self.out.decode() + self.err

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert "Traceback" not in self.err, self.err
        return code


def rows_of(count: int, first: int = 0) -> list[bytes]:
    texts = (
        f"第{n}句：请{'转账' if n % 3 else '问好'} {n * 7} 元{'，谢谢' * (n % 5)}" for n in range(first, first + count)
    )
    return [json.dumps({"id": n, "input": text}, ensure_ascii=False).encode() + b"\n" for n, text in enumerate(texts)]


def fed(pieces: Iterable[bytes], pause: float = 0) -> int:
    """The end of a pipe from which the pieces can be read, one after the other."""
    reading, writing = os.pipe2(os.O_CLOEXEC)

    def feed() -> None:
        with open(writing, "wb", buffering=0) as pipe:
            for piece in pieces:
                pipe.write(piece)
                time.sleep(pause)

    threading.Thread(target=feed, daemon=True).start()
    return reading


def wait_until(happened: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def windows_kept(target: Path) -> int:
    """How many windows a run that has not ended says that it has kept."""
    log = target.with_name(f".{target.name}.partial.log")
    return max(0, log.read_bytes().count(b"\n") - 1) if log.exists() else 0


def stop_at(folder: Path, out: Path, rows: list[bytes], windows: int, *arguments: object) -> None:
    """Leaves a run that ended after so many windows."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    started = Started(folder, "--file", "-", "--out", out, *arguments, stdin=reading)
    os.close(reading)
    os.write(writing, b"".join(rows[: windows * SIZE]))
    wait_until(lambda: windows_kept(out) == windows)
    started.signal(signal.SIGKILL)
    started.wait()
    os.close(writing)


def beside(path: Path) -> set[str]:
    return {other.name for other in path.parent.iterdir() if other.name.startswith(f".{path.name}.")}


def environment(**changes: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"} | changes
