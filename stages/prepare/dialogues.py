"""Dialogues in lines, an utterance a row, to labelled chunks.

Chunks of a dialogue share its group, and groups never part, so cutting before the split can't leak: chunks that are
shuffled first do (most of the article's valid stands in its train).
"""

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from stages.params import Prepare
from stages.prepare.read import Rejected, Rows, optional, parse_label
from stages.text.example import Example
from stages.text.jsonl import DataError, input_text, lines, parse_object, shorten

KEYS = ("case", "speaker", "content", "is_fraud")


@dataclass(frozen=True)
class Utterance:
    """What one speaker said, the name in front; whether it is fraudulent; the line that it was read from."""

    text: str
    is_fraud: bool
    line: int


def read_dialogues(path: Path, params: Prepare) -> Rows:
    """Reads utterances (CSV with a header, or JSON Lines; a folder: all such files in it) and cuts them into chunks.

    An utterance that can't be read is set aside; the rest of its dialogue stays. Group of a chunk: file and case;
    category: the file's name. Raises DataError if nothing is there to read.
    """
    files = sorted(f for f in path.iterdir() if f.suffix in (".csv", ".jsonl")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .csv and no .jsonl file; expected utterances with the keys {', '.join(KEYS)}")
    rows = Rows()
    for file in files:
        dialogues: dict[str, list[Utterance]] = {}
        for number, row, raw in csv_rows(file) if file.suffix == ".csv" else json_rows(file):
            try:
                case, utterance = parse_utterance(row, number)
                dialogues.setdefault(case, []).append(utterance)
            except ValueError as error:
                rows.rejected.append(Rejected(str(file), number, str(error), raw))
        for case, utterances in dialogues.items():
            for size in params.chunk_characters:
                for chunk in chunks(utterances, size):
                    text = "\n".join(utterance.text for utterance in chunk)
                    source = f"{file.name}:{chunk[0].line}-{chunk[-1].line}/{size}"
                    label = is_fraud(chunk, utterances, params.chunk_label)
                    rows.examples.append(Example(text, label, f"{file.stem}/{case}", file.stem, source))
    if not rows.total:
        raise DataError(f"{path} has no rows; expected utterances with the keys {', '.join(KEYS)}")
    return rows


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Line (where the row ends), row and its text. Raises DataError without the header that is expected."""
    numbered = dict(lines(path))
    joined = b"\n".join(numbered.get(number, b"") for number in range(1, max(numbered, default=0) + 1))
    text = joined.decode("utf-8", errors="surrogateescape")
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        columns = reader.fieldnames or []
        if not set(KEYS) <= set(columns) or len(set(columns)) < len(columns):
            raise DataError(f"{path} begins with the columns {shorten(columns)}; expected {', '.join(KEYS)}, each once")
        for row in reader:
            yield reader.line_num, row, repr(row)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: no CSV: {error}") from None


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any], str]]:
    for number, line in lines(path):
        raw = line.decode("utf-8", errors="backslashreplace")
        try:
            yield number, parse_object(line), raw
        except ValueError as error:
            yield number, {"problem": error}, raw


def parse_utterance(row: dict[str, Any], line: int) -> tuple[str, Utterance]:
    """Case and utterance of a row. Raises ValueError with the reason why it is none."""
    if "problem" in row:
        raise row["problem"]
    for key in KEYS:
        if row.get(key) is None:
            raise ValueError(f"the key {key} is missing")
    if "" in row:
        raise ValueError("more columns than the header names: quote a text that holds a comma")
    case, speaker = optional(row, "case"), optional(row, "speaker").strip()
    content = " ".join(input_text({"input": row["content"]}).split())
    return case, Utterance(f"{speaker}: {content}" if speaker else content, parse_label(row["is_fraud"]), line)


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


def is_fraud(chunk: list[Utterance], dialogue: list[Utterance], rule: str) -> bool:
    """any_line: an utterance in the chunk is flagged. from_first_line: the chunk ends at or after the dialogue's first
    flagged one."""
    if rule == "any_line":
        return any(utterance.is_fraud for utterance in chunk)
    if rule != "from_first_line":
        assert_never(rule)
    first = next((utterance.line for utterance in dialogue if utterance.is_fraud), None)
    return first is not None and chunk[-1].line >= first
