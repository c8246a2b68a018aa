"""The audit log: a line of JSON for each verdict, in files that are rotated by size and day, and deleted by age."""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from stages.serve.fingerprint import fingerprint, locked

CURRENT = "audit.jsonl"
ROTATED = "audit-%Y%m%dT%H%M%S.%fZ.jsonl"
FILES = "audit*.jsonl"


def now() -> datetime:
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AuditLog:
    """Appends lines to the log. Other processes may do so at the same time, and `--forget` may replace its files.

    Args:
        folder: of the log's files.
        keep: what a line has of the text: its hash, or the text beside it.
        max_bytes: size from which on a new file is begun. A new day begins one, too.
        days: lines older than this are deleted, a day later at the most.
    """

    def __init__(self, folder: Path, keep: Literal["hash", "text"], max_bytes: int, days: int):
        self.folder, self.keep, self.max_bytes, self.days = folder, keep, max_bytes, days
        self.path = folder / CURRENT
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, verdicts: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Appends a line for each (text, what else is known). Raises OSError, and then writes nothing."""
        time = now()
        written = timestamp(time)
        lines = (json.dumps(self.line(written, *verdict), ensure_ascii=False) for verdict in verdicts)
        data = "".join(f"{line}\n" for line in lines).encode()
        with locked(self.folder):
            if self.is_full(len(data), time):
                self.rotate(time)
            append(self.path, data)

    def line(self, time: str, text: str, known: Mapping[str, Any]) -> dict[str, Any]:
        kept = {"input": text} if self.keep == "text" else {}
        return {"time": time, "sha256": fingerprint(text), **kept, **known}

    def is_full(self, added: int, time: datetime) -> bool:
        """Whether a new file has to be begun: the current one is too large, or of another day."""
        if not self.path.exists() or not (size := self.path.stat().st_size):
            return False
        return size + added > self.max_bytes or self.day_of_current() != time.date()

    def day_of_current(self) -> object:
        """The day of the current file's first line, None if it can't be read."""
        with self.path.open("rb") as file:
            try:
                return datetime.fromisoformat(json.loads(file.readline())["time"]).date()
            except (ValueError, KeyError, TypeError):
                return None

    def rotate(self, time: datetime) -> None:
        os.replace(self.path, self.folder / time.strftime(ROTATED))
        self.delete_old(time)

    def delete_old(self, time: datetime) -> int:
        """Deletes rotated files whose last line is too old. Returns how many. The caller holds the lock."""
        deleted = 0
        for file in sorted(self.folder.glob("audit-*.jsonl")):
            try:
                ended = datetime.strptime(file.name, ROTATED).replace(tzinfo=UTC)
            except ValueError:  # not ours
                continue
            if time - ended > timedelta(days=self.days):
                file.unlink(missing_ok=True)
                deleted += 1
        return deleted

    def tidy(self) -> None:
        """Rotates a file of another day, and deletes what is too old: also where nothing is written."""
        time = now()
        with locked(self.folder):
            if self.is_full(0, time):
                self.rotate(time)
            self.delete_old(time)


def append(path: Path, data: bytes) -> None:
    """Appends lines to a file that only its owner can read, all or nothing. Raises OSError."""
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # edited by hand, or torn by a power failure
            data = b"\n" + data
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
