"""A server as a process of its own, for benchmarks and tests. No command."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from stages.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 600.0  # a large model takes minutes to load


class ServerProcess:
    """`python -m stages.serve` on a free port of this machine, from the first request that it can answer.

    Args:
        arguments: of its command line.
        folder: its working directory, a project's root.
    """

    def __init__(self, *arguments: object, folder: Path = Path()):
        command = [sys.executable, "-m", "stages.serve", "--port", "0", *map(str, arguments)]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
        self.scratch = tempfile.TemporaryDirectory()
        self.output = Path(self.scratch.name) / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
            )
        self.url = ""
        while not self.url and self.process.poll() is None:
            time.sleep(0.05)
            self.url = next((part for part in self.said.split() if part.startswith("http://")), "")
        self.port = int(self.url.rpartition(":")[2] or 0)

    @property
    def said(self) -> str:
        """All that was printed so far."""
        return self.output.read_text(encoding="utf-8")

    def __enter__(self) -> "ServerProcess":
        if self.url:
            deadline = time.monotonic() + START_SECONDS
            while self.process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    if urllib.request.urlopen(f"{self.url}/readyz", timeout=5).status == 200:
                        return self
                time.sleep(0.1)
        status, said = self.end()
        raise UserError(f"the server is not ready (status {status}): {said}")

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.end()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Sends a signal, waits for the end, and returns the status and all that was printed."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return self.process.returncode, self.said

    def classify(self, texts: list[str], **more: Any) -> dict[str, Any]:
        return self.call("/v1/classify", {"input": texts, **more})

    def call(self, path: str, values: dict[str, Any] | None = None, timeout: float = 120) -> dict[str, Any]:
        """The answer of a route; POST if there are values."""
        body = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=timeout).read())

    def figures(self) -> dict[str, float]:
        """The sums of /metrics that have no labels."""
        text = urllib.request.urlopen(f"{self.url}/metrics", timeout=30).read().decode()
        lines = (line.split() for line in text.splitlines() if line and not line.startswith("#") and "{" not in line)
        return {name: float(value) for name, value in lines}
