"""Repairs a dvc.lock that a kill tore, then runs `dvc repro` with this Python and the given arguments.

python -m stages.repro                  (or: make repro)
python -m stages.repro --repair         repairs only, and runs no stage (or: make repair)
python -m stages.repro --force train    all other arguments are those of `dvc repro`
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from stages import params
from stages.command import run
from stages.paths import LOCK
from stages.repro.lock import keep, repair

SECONDS = 0.05  # between two checks of dvc.lock


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages.repro",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--repair", action="store_true", help="repair torn files, and run nothing")
    arguments, others = parser.parse_known_args()
    if done := repair():
        print(f"repro: {done}", flush=True)
    if not arguments.repair:
        params.load()  # a wrong key is named here: DVC only says that a value is missing, or runs nothing
        sys.exit(repro(others))


def repro(arguments: list[str]) -> int:
    """Runs `dvc repro`, keeps a copy of each dvc.lock that it writes, and returns its status.

    The stages run `python`, so the folder of this Python comes first in their PATH.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    process = subprocess.Popen([sys.executable, "-m", "dvc", "repro", *arguments], env=os.environ | {"PATH": path})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal also sends it to DVC and the stage
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    seen = state()
    while process.poll() is None:
        time.sleep(SECONDS)
        if (now := state()) != seen:
            seen = now
            keep()
    keep()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode  # as a shell reports a signal


def state() -> tuple[int, int] | None:
    """Time and size of dvc.lock, which change when it is written."""
    try:
        found = LOCK.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


if __name__ == "__main__":
    run(main)
