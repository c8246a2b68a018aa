"""The one reader of inputs: lines of text files as other people write them, and the JSON objects in them.

Plain or gzip, with or without byte order mark, LF or CRLF, a file, a pipe or standard input.
"""

import contextlib
import gzip
import io
import json
import math
import re
import select
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STANDARD_INPUT = Path("-")
HEAD = 8  # bytes that tell kinds of files apart
BUFFER = 1 << 16
DVC_COPIES = "/.dvc/tmp/exps/"  # where DVC runs experiments outside the workspace
UTF_16_BYTES = re.compile(rb"\xff\xfe|\xfe\xff|(\x00[^\x00]){2}|([^\x00]\x00){2}", re.DOTALL)
INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf"}  # Unicode's categories of characters
UNPACK = "unpack it first (plain files and .gz are read)"
# First bytes of files that are no text: what the file is, and what to do.
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
    """The data can't be used; the message names file and line and says what to do."""


class Peeked(io.RawIOBase):
    """A stream of bytes, read forward once, whose first bytes can be looked at before.

    head: the first HEAD bytes of the stream, fewer only where it holds fewer, however slowly a pipe delivers them.
    """

    def __init__(self, stream: io.RawIOBase | gzip.GzipFile):
        self.stream, self.head, self.given = stream, b"", 0
        while len(self.head) < HEAD and (more := self.wait_for(HEAD - len(self.head))):
            self.head += more

    def wait_for(self, count: int) -> bytes:
        """At most `count` bytes, none at the end. A pipe that does not block (None: no bytes yet) is waited for."""
        while (found := self.stream.read(count)) is None:
            select.select([self.stream], [], [])
        return found

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        found = self.head[self.given : self.given + len(buffer)]
        self.given += len(found)
        found = found or self.wait_for(len(buffer))
        buffer[: len(found)] = found
        return len(found)


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that aren't blank, numbered from 1. Only \\n ends a line: a text may hold other separators.

    The input is opened once and read forward, so that pipes work; the path - is standard input. A byte order mark is
    removed from the start of any line: joined files hold several.
    Raises DataError if the file is missing, a folder, a damaged gzip file, or no text in UTF-8 by its first bytes.
    """
    name = name_of(path)
    try:
        with opened(path) as file:
            for number, line in enumerate(file, 1):
                line = line.removeprefix(BYTE_ORDER_MARK)
                if line.strip():
                    yield number, line.rstrip(b"\r\n")
    except NotTextError as error:
        raise DataError(f"{name} is {error}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name} is a damaged gzip file: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{name} is no file that can be read ({error}): {what_to_do(path)}") from None


def name_of(path: Path) -> str:
    """The input as messages name it."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def what_to_do(path: Path) -> str:
    """What helps where a file can't be read."""
    if "\0" not in str(path) and Path(f"{path}.dvc").is_file():
        return f"DVC tracks it, so run `dvc checkout {path}.dvc` or `dvc pull {path}.dvc`"
    if DVC_COPIES in Path.cwd().as_posix():
        return (
            "`dvc exp run --queue` and `--temp` work in a copy of the project without the files that git ignores. Run "
            f"`dvc add {path}` and `git add {path}.dvc`, or leave these options out, or copy the file there too with "
            f"`--copy-paths {path}`"
        )
    return "put one there, or name another"


class NotTextError(Exception):
    """The file holds no text in UTF-8; the message says what it is and what to do."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked where it is gzip. Raises NotTextError where it is of another kind."""
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
    """Raises NotTextError if the first bytes are those of UTF-16, an archive, a workbook or a binary table."""
    if UTF_16_BYTES.match(head):
        raise NotTextError("text in UTF-16 or UTF-32; expected UTF-8: `iconv -f utf-16 -t utf-8 old > new` converts it")
    for magic, (found, advice) in FOREIGN.items():
        if head.startswith(magic):
            raise NotTextError(f"{found}; expected text in UTF-8, plain or gzip: {advice}")


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises ValueError with the reason why there is none."""
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=unique_keys, parse_float=finite, parse_constant=finite)
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        if b"\r" in line:
            raise ValueError("no JSON: lines end in a bare carriage return (\\r); expected \\n or \\r\\n") from None
        raise ValueError(f"no JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError(f"found {type(row).__name__}; expected an object")
    return row


def finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"a number that JSON does not have: {shorten(number)}")
    return float(number)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice")
    return row


def input_text(row: dict[str, Any], key: str = "input") -> str:
    """The text of a row. Raises ValueError where it is missing, blank or can't be encoded."""
    text = required(row, key)
    if not isinstance(text, str) or not is_visible(text):
        raise ValueError(f"{key} is {shorten(text)}; expected a text that is not blank")
    require_encodable(text)
    return text


def is_visible(text: str) -> bool:
    """Whether a text holds anything but blanks, control characters and marks without width, such as U+200B."""
    return any(unicodedata.category(character) not in INVISIBLE for character in text)


def required(row: dict[str, Any], key: str) -> Any:
    if key not in row:
        raise ValueError(f"the key {key} is missing; found {shorten(list(row))}")
    return row[key]


def require_encodable(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"a lone surrogate, {text[error.start]!a}, at character {error.start}") from None


def shorten(value: Any, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "…"
