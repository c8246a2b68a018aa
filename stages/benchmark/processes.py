"""Measurements in a process of their own, so that nothing of an earlier load counts."""

import subprocess
import sys

from stages.errors import UserError


def run_module(module: str, *arguments: str) -> None:
    """Runs a module of this project in a new process. Raises UserError if it fails; its own output stands above."""
    status = subprocess.run([sys.executable, "-m", module, *arguments]).returncode
    if status != 0:
        command = " ".join(["python", "-m", module, *arguments])
        raise UserError(f"`{command}` ended with status {status}; its output above says why")
