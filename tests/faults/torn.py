"""SIGKILL to DVC and all that it started, at a byte of a file that it rewrites.

DVC's process gets a module `sitecustomize` on its path, which Python imports at its start. It counts how often the file
is opened for writing. At the chosen opening the bytes up to the chosen one reach the file, and then the kill comes.
"""

import os
import subprocess
from pathlib import Path

from tests.faults.project import start

SITECUSTOMIZE = """
import builtins
import os
import signal

name, opening, length = os.environ["TEAR"].split(":")
left = [int(opening), int(length)]
real = builtins.open


class Torn:
    encoding = "utf-8"  # a text file, for what writes YAML

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error is None:
            self.end()

    def write(self, text):
        content = text.encode()
        os.write(self.file.fileno(), content[: left[1]])
        left[1] -= len(content)
        if left[1] <= 0:
            self.end()

    def flush(self):
        pass

    def end(self):
        os.killpg(0, signal.SIGKILL)


def torn_open(file, mode="r", *arguments, **options):
    opened = real(file, mode, *arguments, **options)
    if str(file).endswith(name) and mode.startswith("w"):
        left[0] -= 1
        if left[0] == 0:
            return Torn(opened)
    return opened


builtins.open = torn_open
"""


def tear(folder: Path, *command: str, name: str, opening: int, length: int) -> None:
    """Runs the command and kills it at a byte of the file that ends in `name`.

    Args:
        folder: the project.
        command: what runs DVC.
        name: end of the path of the file to tear.
        opening: which time, from 1, that the file is opened for writing.
        length: bytes that the file then keeps.
    """
    module = folder / ".dvc/tmp/tear"
    module.mkdir(parents=True, exist_ok=True)
    (module / "sitecustomize.py").write_text(SITECUSTOMIZE)
    variables = ["env", f"PYTHONPATH={module}", f"TEAR={name}:{opening}:{length}"]
    log = folder / "runs/log"
    log.parent.mkdir(exist_ok=True)
    process = start(folder, *variables, *command, log=log)
    try:
        code = process.wait(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        raise
    assert code == -9, log.read_text(errors="replace")
