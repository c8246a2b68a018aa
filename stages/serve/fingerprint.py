"""By what a text is known in the audit log, and the lock that the server and `--forget` share."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = "lock"


def same_text(text: str) -> str:
    """The text without what differs between a file and a page: blanks around it, kinds of line ends."""
    return text.replace("\r\n", "\n").strip()


def fingerprint(text: str) -> str:
    """sha256 of a text in UTF-8, in hex."""
    return hashlib.sha256(same_text(text).encode("utf-8", "backslashreplace")).hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process writes the folder's files or the verdicts, and keeps others out."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
