"""Dialogues in lines, an utterance a row, to labelled chunks.

Chunks of a dialogue share its group, and groups never part, so cutting before the split can't leak: chunks that are
shuffled first do (most of the article's valid stands in its train).
"""

import csv
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

from stages.data.jsonl import DataError, input_text, lines, parse_object, require_encodable, required, shorten
from stages.params import Prepare
from stages.prepare.read import LABELS, Rejected, Rows, identifier, optional, parse_label
from stages.text.example import Example

KEYS = ("case", "speaker", "content", "is_fraud")
ENDING = re.compile(r"\.(csv|jsonl)(\.gz)?$", re.IGNORECASE)
# A row: the line where it ends, its values (or why it has none), its text.
Row = tuple[int, dict[str, Any] | ValueError, str]


@dataclass(frozen=True)
class Utterance:
    """What one speaker said, the name in front, and whether it is fraudulent; the line that it was read from."""

    text: str
    is_fraud: bool
    line: int


@dataclass
class Dialogue:
    """The utterances of a case in the file's order; first_flagged: line of the first flagged row, set aside or not."""

    utterances: list[Utterance] = field(default_factory=list)
    first_flagged: int | None = None


def read_dialogues(path: Path, params: Prepare) -> Rows:
    """Reads utterances (CSV with a header, or JSON Lines; a folder: all such files below it) and cuts them into chunks.

    An utterance that can't be read is set aside; the rest of its dialogue stays. Group of a chunk: file and case;
    category: the file's name. Raises DataError if nothing is there to read.
    """
    rows = Rows()
    if path.is_dir():
        files, rows.left_out = find_files(path)
        names = name_files(files)
    else:
        files, names = [Path(path.name)], {Path(path.name): path.stem}
    owners: dict[str, Path] = {}
    for file in files:
        whole = path / file if path.is_dir() else path
        read = read_file(whole, file.as_posix(), names[file], params)
        if not read.total:
            rows.left_out[str(whole)] = "holds no rows"
        for group in sorted({example.group for example in read.examples}):
            if owners.setdefault(group, file) != file:
                raise DataError(f"{path}: {owners[group]} and {file} both give the group {group!r}: rename one of them")
        rows.add(read)
    if not rows.total:
        left_out = "".join(f"\n  {file}: {reason}" for file, reason in rows.left_out.items())
        raise DataError(
            f"{path} holds no .csv and no .jsonl file (.gz or not) with rows; expected utterances with the keys "
            f"{', '.join(KEYS)}{left_out}"
        )
    return rows


def find_files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The files to read, relative to the folder, in order; and what else lies there, each with the reason.

    Hidden files and DVC's own (.dvc) are no data.
    """
    files: list[Path] = []
    left_out: dict[str, str] = {}

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} is no folder that can be read ({error})")

    for where, folders, names in os.walk(folder, onerror=refuse):
        linked = [name for name in folders if (Path(where) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in linked)
        for name in linked + names:
            path = Path(where) / name
            shown = os.fsencode(path).decode("utf-8", errors="backslashreplace")
            if name.startswith(".") or name.endswith(".dvc"):
                continue
            if name in linked:
                left_out[shown] = "a link to a folder"
            elif not ENDING.search(name):
                left_out[shown] = "its name ends in neither .csv nor .jsonl (.gz or not)"
            elif path.exists() and not path.is_file():
                left_out[shown] = "no regular file"
            else:
                files.append(path.relative_to(folder))
    return sorted(files), dict(sorted(left_out.items()))


def name_files(files: list[Path]) -> dict[Path, str]:
    """A name of each file for groups and categories: its path without endings; with them where two would be equal."""
    bare = {file: ENDING.sub("", file.as_posix()) for file in files}
    counts = Counter(bare.values())
    names = {file: name if counts[name] == 1 else file.as_posix() for file, name in bare.items()}
    for name in names.values():
        try:
            require_encodable(name)
        except ValueError:
            raise DataError(
                f"the file name {name!a} is no UTF-8, as an archive packed in GBK gives it: rename it"
            ) from None
    return names


def read_file(path: Path, source: str, name: str, params: Prepare) -> Rows:
    """Reads the dialogues of one file.

    Args:
        path: a CSV file with a header, or JSON Lines.
        source: the file as it stands in each example's source.
        name: the file as it stands in groups and categories.
        params: sizes of the chunks and the rule of their labels.
    """
    rows = Rows()
    dialogues: dict[str, Dialogue] = {}
    last, resumed = "", []
    for number, row, raw in csv_rows(path) if is_csv(path) else json_rows(path):
        try:
            case = add_utterance(dialogues, row, number)
        except ValueError as error:
            rows.rejected.append(Rejected(str(path), number, str(error), raw))
            continue
        rows.used[str(path)] += 1
        if case != last and len(dialogues[case].utterances) > 1:
            resumed.append(f"{case!r} at line {number}")
        last = case
    if resumed:
        rows.doubts.append(
            f"{path}: {len(resumed)} times a case resumes after rows of another one (the first: {resumed[0]}). If "
            "these are different dialogues, give them different cases"
        )
    for case, dialogue in dialogues.items():
        for chunk, size in cut(dialogue.utterances, params.chunk_characters):
            text = "\n".join(utterance.text for utterance in chunk)
            label = is_fraud(chunk, dialogue, params.chunk_label)
            lines_of = f"{chunk[0].line}-{chunk[-1].line}"
            rows.examples.append(Example(text, label, f"{name}/{case}", name, f"{source}:{lines_of}/{size}"))
    return rows


def is_csv(path: Path) -> bool:
    ending = ENDING.search(path.name)
    return ending is not None and ending[1].lower() == "csv"


def csv_rows(path: Path) -> Iterator[Row]:
    """Raises DataError without the header that is expected, or where quotes don't close."""
    text = csv_lines(path)
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(text, strict=True)
    columns: list[str] | None = None
    end = 0
    try:
        for cells in reader:
            start, end = end, reader.line_num
            if not any(cell.strip() for cell in cells):  # as Excel writes rows below a table
                continue
            if columns is None:
                columns = cells
                require_columns(path, columns)
                continue
            raw = "".join(text[start:end]).strip("\n").encode("utf-8", errors="surrogateescape")
            yield end, parse_cells(path, end, columns, cells, raw), raw.decode("utf-8", errors="backslashreplace")
    except csv.Error as error:
        raise DataError(
            f"{path}:{end + 1}: no CSV in the row that begins here: {error}; double the quotes of a text"
        ) from None


def csv_lines(path: Path) -> list[str]:
    """All lines of a CSV file with their ends, blank ones too. A file without \\n may end its lines in \\r."""
    numbered = dict(lines(path))
    if len(numbered) == 1 and 1 in numbered:
        numbered = dict(enumerate(numbered[1].split(b"\r"), 1))
    found = (numbered.get(number, b"") for number in range(1, max(numbered, default=0) + 1))
    return [line.decode("utf-8", errors="surrogateescape") + "\n" for line in found]


def require_columns(path: Path, columns: list[str]) -> None:
    """Raises DataError if the header lacks a column, or holds one twice."""
    if any(columns.count(key) != 1 for key in KEYS):
        raise DataError(
            f"{path} begins with the columns {shorten(columns, 300)}; expected {', '.join(KEYS)}, each once, in lower "
            "case, with commas between"
        )


def parse_cells(path: Path, line: int, columns: list[str], cells: list[str], raw: bytes) -> dict | ValueError:
    """The values of a CSV row by column, or why there are none. Raises DataError where the header comes again.

    Args:
        path, line: where the row stands.
        columns: names of the header. One without a name may stand in front (pandas' index), or be blank in all rows.
        cells: values of the row.
        raw: bytes of the row.
    """
    if {*KEYS} <= {cell.strip().lower() for cell in cells}:
        raise DataError(
            f"{path}:{line}: the header comes again, so files were joined here, and cases of one name would be mixed: "
            "give each file by itself, in a folder"
        )
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return ValueError(f"no UTF-8 at byte {error.start}")
    if spans_rows(raw.decode("utf-8"), columns):
        return ValueError("a quote that opens in one row closes in a later one: double the quotes of a text")
    named = max(number for number, name in enumerate(columns, 1) if name.strip())
    if len(cells) > len(columns) or any(cell.strip() for cell in cells[named:]):
        return ValueError("more columns than the header names: quote a text that holds a comma")
    return dict(zip(columns, cells, strict=False))


def spans_rows(raw: str, columns: list[str]) -> bool:
    """Whether the lines of a CSV row are rows themselves: each has all columns, and one a label in its place."""
    values = [line.split(",") for line in raw.split("\n") if line.strip()]
    flag = columns.index("is_fraud") - len(columns)
    whole = all(len(line) >= len(columns) for line in values)
    return len(values) > 1 and whole and any(line[flag].strip().lower() in LABELS for line in values[:-1])


def json_rows(path: Path) -> Iterator[Row]:
    for number, line in lines(path):
        raw = line.decode("utf-8", errors="backslashreplace")
        try:
            yield number, parse_object(line), raw
        except ValueError as error:
            yield number, error, raw


def add_utterance(dialogues: dict[str, Dialogue], row: dict[str, Any] | ValueError, line: int) -> str:
    """Adds a row to its dialogue. Returns its case. Raises ValueError with the reason why there is none.

    A flag counts from its line on, also where the text of that line can't be used.
    """
    if isinstance(row, ValueError):
        raise row
    required(row, "case")
    case = identifier(row, "case")
    if not case:
        raise ValueError(
            "case is blank; expected the name of the row's dialogue in every row (of merged cells: fill down)"
        )
    flagged = parse_label(required(row, "is_fraud"), "is_fraud")
    dialogue = dialogues.setdefault(case, Dialogue())
    if flagged and dialogue.first_flagged is None:
        dialogue.first_flagged = line
    required(row, "speaker")
    speaker, content = (" ".join(text.split()) for text in (optional(row, "speaker"), input_text(row, "content")))
    dialogue.utterances.append(Utterance(f"{speaker}: {content}" if speaker else content, flagged, line))
    return case


def cut(utterances: list[Utterance], sizes: list[int]) -> Iterator[tuple[list[Utterance], int]]:
    """The chunks of each size, with the size; a chunk that several sizes cut comes once, of the smallest."""
    seen: set[tuple[int, int]] = set()
    for size in sorted(sizes):
        for chunk in chunks(utterances, size):
            place = chunk[0].line, chunk[-1].line
            if place not in seen:
                seen.add(place)
                yield chunk, size


def chunks(utterances: list[Utterance], characters: int) -> Iterator[list[Utterance]]:
    """Runs of whole utterances of at most `characters` in all, line ends included; a longer utterance stands alone."""
    chunk: list[Utterance] = []
    length = 0
    for utterance in utterances:
        if chunk and length + 1 + len(utterance.text) > characters:
            yield chunk
            chunk, length = [], 0
        length += len(utterance.text) + bool(chunk)
        chunk.append(utterance)
    if chunk:
        yield chunk


def is_fraud(chunk: list[Utterance], dialogue: Dialogue, rule: str) -> bool:
    """any_line: an utterance in the chunk is flagged. from_first_line: the chunk ends at or after the dialogue's first
    flagged one."""
    if rule == "any_line":
        return any(utterance.is_fraud for utterance in chunk)
    if rule != "from_first_line":
        assert_never(rule)
    return dialogue.first_flagged is not None and chunk[-1].line >= dialogue.first_flagged
