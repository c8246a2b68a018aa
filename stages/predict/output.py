"""Writes classified rows: to a file, which appears when all rows are there, or straight to a pipe or device.

Until then the rows of a file are in .NAME.partial beside it, as JSON Lines, window by window. .NAME.partial.log records
from which input each window was made. A run that ended midway resumes after the last whole window.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import select
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stages.artifacts import flush
from stages.classifier.shift import Cells
from stages.errors import UserError
from stages.model.scoring import WINDOW
from stages.predict.convert import Converter

STANDARD_OUTPUT = Path("-")
LINKS_FOLLOWED = 40  # as many as Linux follows


@dataclass(frozen=True)
class WindowRecord:
    """A window that was scored.

    Attributes:
        input_sha256: sha256 of its lines.
        output_sha256, bytes: sha256 and length of its classified rows.
        rows, fraud: number of rows, and of those called fraud.
        cut: number of texts that were longer than the prompt has room for.
        cells: counts of the texts, to compare them with valid.
    """

    input_sha256: str
    output_sha256: str
    bytes: int
    rows: int
    fraud: int
    cut: int
    cells: Cells = field(default_factory=dict)


class Output(Protocol):
    """Takes windows in order. Those that `kept` finds are already there, the others are written.

    `how_to_resume` says what is kept after an error: nothing if none was scored before.
    """

    name: str

    def resume(self, made_with: Mapping[str, str]) -> None: ...
    def kept(self, input_sha256: str) -> WindowRecord | None: ...
    def write(self, rows: bytes, window: WindowRecord) -> None: ...
    def finish(self) -> None: ...
    def remove_empty(self) -> None: ...
    def close(self) -> None: ...
    def how_to_resume(self) -> str: ...


class Stream:
    """A pipe, a device or an open file. Rows are written at once, and nothing is kept for a later run."""

    def __init__(self, handle: int, name: str):
        self.handle, self.name, self.begun = handle, name, False

    def resume(self, made_with: Mapping[str, str]) -> None:
        """Does nothing: rows that were written can't be read back."""

    def kept(self, input_sha256: str) -> WindowRecord | None:
        return None

    def write(self, rows: bytes, window: WindowRecord) -> None:
        self.begun = True
        write_all(self.handle, rows)

    def finish(self) -> None:
        """Does nothing: all rows are there."""

    def remove_empty(self) -> None:
        """Does nothing: whoever made the pipe or device keeps it."""

    def close(self) -> None:
        os.close(self.handle)

    def how_to_resume(self) -> str:
        return "A stream can't be resumed: the same command starts from the first row" if self.begun else ""


class PartialFile:
    """A file that replaces `target` when it is finished, and takes over its mode.

    convert: makes the target of the rows, which are JSON Lines until then. None: they are the target.
    """

    def __init__(self, target: Path, convert: Converter | None = None):
        self.target, self.name, self.convert = target, str(target), convert
        self.path = target.with_name(f".{target.name}.partial")
        self.log_path = target.with_name(f".{target.name}.partial.log")
        self.earlier: list[WindowRecord] = []  # windows of a run that ended midway, not yet reached
        self.position = self.rows = 0  # bytes and rows of the windows up to here
        self.log_end = 0  # bytes of the log up to here
        self.header = b""
        target.parent.mkdir(parents=True, exist_ok=True)
        self.handle = self.open_locked()
        with contextlib.suppress(FileNotFoundError):
            take_owner_and_mode(self.handle, target.stat())
        self.log = os.open(self.log_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def open_locked(self) -> int:
        """Opens the partial file and locks it. Raises UserError if another process writes it."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                raise UserError(
                    f"another process is writing {self.target}: wait until it ends, or choose another --out"
                ) from None
            except OSError:  # a file system without locks
                return handle
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), self.path.stat()):
                    return handle
            os.close(handle)  # the process that wrote it has just moved it to the target

    def resume(self, made_with: Mapping[str, str]) -> None:
        """Finds the windows that an earlier run kept. They count only if all of `made_with` is unchanged.

        Raises UserError if options of the command alone differ: the other ones would resume these windows.
        """
        lines = self.log_path.read_bytes().split(b"\n")[:-1]  # the part after the last line end is torn
        before = json_object(lines[0]) if lines else made_with
        changed = [key for key, value in made_with.items() if before.get(key) != value]
        earlier = list(self.whole_windows(lines[1:]))
        if changed and earlier and all(map(is_stated, changed)):
            rows, options = sum(window.rows for window in earlier), [f"{key} {before.get(key)}" for key in changed]
            raise UserError(
                f"{self.path} holds {rows} rows that were scored with {', '.join(options)}: use that again to resume "
                "them, or delete the file to score all rows anew"
            )
        self.header = json.dumps(made_with, sort_keys=True).encode() + b"\n"
        if changed:
            print(f"predict: {self.path} was scored with a different {', '.join(changed)}: all rows are scored anew")
        self.earlier = [] if changed else earlier
        self.write_log()

    def whole_windows(self, lines: list[bytes]) -> Iterator[WindowRecord]:
        """The windows of the log whose rows are in the partial file, byte for byte."""
        with open(self.handle, "rb", closefd=False) as file:
            file.seek(0)
            for line in lines:
                try:
                    window = WindowRecord(**json_object(line))
                except TypeError:  # a line that predict did not write
                    return
                if hashlib.sha256(file.read(window.bytes)).hexdigest() != window.output_sha256:
                    return
                yield window

    def write_log(self) -> None:
        """Rewrites the log for the windows that count, before anything else changes."""
        os.ftruncate(self.log, 0)
        os.lseek(self.log, 0, os.SEEK_SET)
        write_all(self.log, self.header + b"".join(line_of(window) for window in self.earlier))
        self.log_end = len(self.header)
        os.fsync(self.log)

    def kept(self, input_sha256: str) -> WindowRecord | None:
        """The next window of an earlier run, if it was made from this input. If not, no later one counts."""
        if self.earlier and self.earlier[0].input_sha256 == input_sha256:
            window = self.earlier.pop(0)
            self.position += window.bytes
            self.rows += window.rows
            self.log_end += len(line_of(window))
            return window
        if self.earlier:
            print(f"predict: after row {self.rows} the input is not that of the earlier run: scored anew from there")
            self.cut_log()
        self.earlier = []
        return None

    def cut_log(self) -> None:
        """Cuts the log after the windows up to here, so that the next ones follow them."""
        os.ftruncate(self.log, self.log_end)
        os.lseek(self.log, self.log_end, os.SEEK_SET)

    def write(self, rows: bytes, window: WindowRecord) -> None:
        """Writes a window to the disk: first the rows, then the line of the log that makes them count."""
        os.ftruncate(self.handle, self.position)
        os.lseek(self.handle, self.position, os.SEEK_SET)
        write_all(self.handle, rows)
        self.position += window.bytes
        if window.rows == WINDOW:  # the last window may grow with the input
            os.fsync(self.handle)
            write_all(self.log, line_of(window))
            self.rows += window.rows  # before the disk is waited for: they count if a signal ends the process there
            os.fsync(self.log)

    def finish(self) -> None:
        """Replaces the target by the rows."""
        os.ftruncate(self.handle, self.position)
        os.fsync(self.handle)
        if self.convert:
            with self.converted(self.convert) as path:
                put_in_place(path, self.target)
            self.path.unlink()
        else:
            put_in_place(self.path, self.target)
        self.log_path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def converted(self, convert: Converter) -> Iterator[Path]:
        """A file of the rows in the target's format, with the mode of the partial file. It is removed if it stays."""
        path = self.path.with_suffix(".converted")
        path.unlink(missing_ok=True)  # left by a process that was killed
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                convert(self.path, file)
                file.flush()
                take_owner_and_mode(file.fileno(), os.fstat(self.handle))
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def remove_empty(self) -> None:
        """Removes the partial file if it holds no whole window of this run or of an earlier one."""
        if not self.rows and not self.earlier and not self.unread():
            for path, handle in ((self.path, self.handle), (self.log_path, self.log)):
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), path.stat()):
                        path.unlink()

    def close(self) -> None:
        """Closes the files, and removes empty ones."""
        self.remove_empty()
        os.close(self.handle)
        os.close(self.log)

    def unread(self) -> bool:
        """Whether an earlier run left a log that this one has not read, since it failed before that."""
        return not self.header and os.fstat(self.log).st_size > 0

    def how_to_resume(self) -> str:
        if not self.header and not self.unread():
            return ""
        if not self.path.exists():
            return f"All rows are in {self.target}"
        rows = self.rows + sum(window.rows for window in self.earlier)
        if not rows:
            return "Nothing new was kept" if self.unread() else "No rows were kept: fewer than a window were scored"
        return f"{rows} scored rows are kept in {self.path}: the same command resumes there"


def is_stated(setting: str) -> bool:
    """Whether the command states a setting. The others (model, code, device, versions) are what they are."""
    return setting.startswith("--") or setting == "number of processes"


def open_output(path: Path, convert: Converter | None = None) -> Output:
    """Opens what `--out` names, before anything is scored. Raises UserError if it can't be written.

    convert: as of `PartialFile`.
    """
    try:
        number = 1 if path == STANDARD_OUTPUT else descriptor_of(path)
        if number is not None:
            return Stream(taken_over(number), "standard output" if number == 1 else str(path))
        target = Path(os.path.realpath(path))
        if target.is_dir() or stat_kind(target) == stat.S_IFBLK:
            raise UserError(f"--out {path} is a folder or a disk; expected the name of a file, a pipe or -")
        if target.exists() and not target.is_file():
            if convert:
                raise UserError(f"--out {path} is a pipe or a device, which takes JSON Lines; expected a file")
            return Stream(os.open(target, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY), str(path))
        if target.exists() and not os.access(target, os.W_OK):
            raise UserError(f"--out {path} is write-protected: choose another name, or permit writing")
        return PartialFile(target, convert)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--out {path} can't be written ({error}): choose another place, or permit writing") from None


def put_in_place(path: Path, target: Path) -> None:
    """Moves a file to the target."""
    try:
        os.replace(path, target)
        flush(target.parent)
    except OSError as error:
        if error.errno != errno.EBUSY:  # containers mount single files, which can't be replaced
            raise
        shutil.copyfile(path, target)
        flush(target)
        path.unlink()


def stat_kind(path: Path) -> int:
    return stat.S_IFMT(path.stat().st_mode) if path.exists() else 0


def descriptor_of(path: Path) -> int | None:
    """The number of the open file that a path such as /dev/stdout or /proc/self/fd/3 stands for, or None.

    The file behind such a path must not be replaced: the shell opened it, perhaps to append.
    """
    own = {os.path.realpath("/proc/self/fd"), "/dev/fd"}
    for _ in range(LINKS_FOLLOWED):
        folder = os.path.realpath(path.parent)
        if folder in own and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = Path(folder) / os.readlink(path)
    return None


def taken_over(number: int) -> int:
    """A copy of an open file for the rows alone. Prints to standard output go to standard error from now on."""
    handle = os.dup(number)
    if number == 1:
        sys.stdout.flush()
        os.dup2(2, 1)
    return handle


def take_owner_and_mode(handle: int, old: os.stat_result) -> None:
    os.fchmod(handle, stat.S_IMODE(old.st_mode))
    with contextlib.suppress(PermissionError):  # only root may do that
        os.fchown(handle, old.st_uid, old.st_gid)


def write_all(handle: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[os.write(handle, rest) :]
        except BlockingIOError:  # the other end made the pipe non-blocking
            select.select([], [handle], [])


def line_of(window: WindowRecord) -> bytes:
    return json.dumps(asdict(window)).encode() + b"\n"


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object in a line of a log. It is empty if there is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def writing(out: Output) -> Iterator[None]:
    """Raises UserError if the rows can't be written. A pipe that nobody reads still raises BrokenPipeError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"{out.name} could not be written: {error}. Make room, or choose another --out") from error
