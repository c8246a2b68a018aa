"""The one reader of input files: lines of text as other programs write them.

Files are plain or gzip, with or without a byte order mark, with LF or CRLF. A pipe and standard input work too.
"""

import contextlib
import gzip
import io
import re
import select
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STANDARD_INPUT = Path("-")
HEAD = 8  # bytes, enough to recognise the kind of a file
BUFFER = 1 << 16
DVC_COPIES = "/.dvc/tmp/exps/"  # where DVC runs experiments outside the workspace
UTF_16_BYTES = re.compile(rb"\xff\xfe|\xfe\xff|(\x00[^\x00]){2}|([^\x00]\x00){2}", re.DOTALL)
UNPACK = "unpack it first (plain files and .gz are read)"
# First bytes of files that are not text: what the file is, and what to do.
FOREIGN = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook (.xlsx)", "export the sheet as CSV in UTF-8, or unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook or another Office file", "export the sheet as CSV in UTF-8"),
    b"PAR1": ("a Parquet file", "export it: pandas.read_parquet(f).to_json(new, orient='records', lines=True)"),
    b"ARROW1": ("an Arrow file", "export its table as JSON Lines"),
    b"SQLite f": ("an SQLite database", "export its table as JSON Lines"),
    b"%PDF": ("a PDF file", "export its text as JSON Lines"),
    b"BZh": ("a bzip2 file", UNPACK),
    b"\xfd7zXZ": ("an xz file", UNPACK),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"Rar!": ("a RAR archive", UNPACK),
}


class DataError(UserError):
    """Data that can't be used. The message names file and line, and what to do."""


class Peeked(io.RawIOBase):
    """A stream of bytes whose first bytes can be inspected before it is read forward.

    head: the first HEAD bytes of the stream, or all bytes of a shorter one, however slowly a pipe delivers them.
    """

    def __init__(self, stream: io.RawIOBase | gzip.GzipFile):
        self.stream, self.head, self.given = stream, b"", 0
        while len(self.head) < HEAD and (more := self.wait_for(HEAD - len(self.head))):
            self.head += more

    def wait_for(self, count: int) -> bytes:
        """Returns at most `count` bytes, none at the end. Waits for a non-blocking pipe, which gives None meanwhile."""
        while (found := self.stream.read(count)) is None:
            select.select([self.stream], [], [])
        return found

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self.head[self.given : self.given + len(buffer)]
        self.given += len(found)
        found = found or self.wait_for(len(buffer))
        buffer[: len(found)] = found
        return len(found)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields number (from 1) and bytes, without the end, of each line of `read_raw_lines` that isn't blank."""
    for number, line in read_raw_lines(path):
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def read_raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields number (from 1) and bytes of each line, with its end.

    Only \\n ends a line, because a text may hold other separators. The input is opened once and read forward, so that
    pipes work. The path - is standard input. A byte order mark is removed from the start of any line, because joined
    files hold several.
    Raises DataError if the file is missing, a folder, a damaged gzip file, or by its first bytes not text in UTF-8.
    """
    name = input_name(path)
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line.removeprefix(BYTE_ORDER_MARK)
    except NotTextError as error:
        raise DataError(f"{name} is {error}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name} is a damaged gzip file: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{name} is no file that can be read ({error}): {missing_file_advice(path)}") from None


def input_name(path: Path) -> str:
    """The name of an input in messages."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def missing_file_advice(path: Path) -> str:
    """What to do about a file that can't be read."""
    if "\0" not in str(path) and Path(f"{path}.dvc").is_file():
        tracked = shlex.quote(f"{path}.dvc")
        return f"DVC tracks it, so run `dvc checkout {tracked}` or `dvc pull {tracked}`"
    if DVC_COPIES in Path.cwd().as_posix():
        quoted, tracked = shlex.quote(str(path)), shlex.quote(f"{path}.dvc")
        return (
            "`dvc exp run --queue` and `--temp` work in a copy of the project without the files that git ignores. Run "
            f"`dvc add {quoted}` and `git add {tracked}`, or leave these options out, or copy the file there too with "
            f"`--copy-paths {quoted}`"
        )
    return "put one there, or name another"


def check_command(path: Path) -> str:
    """The command that guesses how a file is read, as messages show it and a shell takes it."""
    return f"`python -m stages.prepare --check {shlex.quote(str(path))}`"


class NotTextError(Exception):
    """A file that isn't text in UTF-8. The message says what it is and what to do."""


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[io.BufferedReader]:
    """Opens a file for reading bytes, unpacked if it is gzip. Raises NotTextError for other kinds of files."""
    standard = path == STANDARD_INPUT
    with open(0 if standard else path, "rb", buffering=0, closefd=not standard) as file:
        stream = Peeked(file)
        if stream.head.startswith(GZIP_MAGIC):
            stream = Peeked(gzip.GzipFile(fileobj=io.BufferedReader(stream, BUFFER)))
            if stream.head.startswith(GZIP_MAGIC):
                raise NotTextError("gzip within gzip: unpack it once")
        require_text(stream.head)
        yield io.BufferedReader(stream, BUFFER)


def require_text(head: bytes) -> None:
    """Raises NotTextError if the first bytes belong to UTF-16, an archive, a workbook or a binary table."""
    if UTF_16_BYTES.match(head):
        raise NotTextError("text in UTF-16 or UTF-32; expected UTF-8: `iconv -f utf-16 -t utf-8 old > new` converts it")
    for magic, (found, advice) in FOREIGN.items():
        if head.startswith(magic):
            raise NotTextError(f"{found}; expected text in UTF-8, plain or gzip: {advice}")
