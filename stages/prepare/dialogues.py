"""Dialogues, an utterance a row, read from CSV and JSON Lines and cut into chunks.

Chunks of a dialogue share its group, and a group is never split, so cutting before the split can't leak. Chunks that
are shuffled first do leak: most of the article's valid texts appear in its train texts.
"""

import os
import re
from collections import Counter
from pathlib import Path

from stages.data.csv_table import read_csv_table
from stages.data.jsonl import read_jsonl
from stages.data.lines import DataError
from stages.data.row import Row
from stages.data.values import identifier, input_text, optional_text, parse_label, require_encodable, required
from stages.params import Prepare
from stages.prepare.chunks import Dialogue, Utterance, cut_chunks, is_fraud
from stages.prepare.read import Rejected, Rows
from stages.text.example import Example

KEYS = ("case", "speaker", "content", "is_fraud")
ENDING = re.compile(r"\.(csv|jsonl)(\.gz)?$", re.IGNORECASE)


def read_dialogues(path: Path, params: Prepare) -> Rows:
    """Reads utterances from a CSV or JSON Lines file, or all such files below a folder, and cuts them into chunks.

    An utterance that can't be used is rejected, and the rest of its dialogue stays. The group of a chunk is made of
    file and case; its category is the file's name. Raises DataError if there is nothing to read.
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
    """The files to read, sorted and relative to the folder, and each other file with the reason why it is left out.

    Hidden files and DVC's own (.dvc) are skipped.
    """
    files: list[Path] = []
    left_out: dict[str, str] = {}

    def raise_unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename} is no folder that can be read ({error})")

    for where, folders, names in os.walk(folder, onerror=raise_unreadable):
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
    """The name of each file in groups and categories: its path without endings, or with them if two would be equal."""
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
        source: the file's name in the source of each example.
        name: the file's name in groups and categories.
        params: the sizes of chunks in characters, and the rule for their labels.
    """
    rows = Rows()
    dialogues: dict[str, Dialogue] = {}
    last, resumed = "", []
    for row in read_csv_table(path, KEYS, "is_fraud") if is_csv(path) else read_jsonl(path):
        try:
            case = add_utterance(dialogues, row)
        except ValueError as error:
            rows.rejected.append(Rejected(str(path), row.line, str(error), row.raw))
            continue
        rows.used[str(path)] += 1
        if case != last and len(dialogues[case].utterances) > 1:
            resumed.append(f"{case!r} at line {row.line}")
        last = case
    if resumed:
        rows.doubts.append(
            f"{path}: {len(resumed)} times a case resumes after rows of another one (the first: {resumed[0]}). If "
            "these are different dialogues, give them different cases"
        )
    for case, dialogue in dialogues.items():
        for chunk, size in cut_chunks(dialogue.utterances, params.chunk_characters):
            text = "\n".join(utterance.text for utterance in chunk)
            label = is_fraud(chunk, dialogue, params.chunk_label)
            lines_of = f"{chunk[0].line}-{chunk[-1].line}"
            rows.examples.append(Example(text, label, f"{name}/{case}", name, f"{source}:{lines_of}/{size}"))
    return rows


def is_csv(path: Path) -> bool:
    ending = ENDING.search(path.name)
    return ending is not None and ending[1].lower() == "csv"


def add_utterance(dialogues: dict[str, Dialogue], row: Row) -> str:
    """Adds a row to its dialogue and returns its case. Raises ValueError with the reason if it can't be used.

    A flag counts from its line on, also if the text of that line can't be used.
    """
    values = row.require_values()
    required(values, "case")
    case = identifier(values, "case")
    if not case:
        raise ValueError(
            "case is blank; expected the name of the row's dialogue in every row (of merged cells: fill down)"
        )
    flagged = parse_label(required(values, "is_fraud"), "is_fraud")
    dialogue = dialogues.setdefault(case, Dialogue())
    if flagged and dialogue.first_flagged is None:
        dialogue.first_flagged = row.line
    required(values, "speaker")
    speaker = " ".join(optional_text(values, "speaker").split())
    content = " ".join(input_text(values, "content", row.of_table).split())
    dialogue.utterances.append(Utterance(f"{speaker}: {content}" if speaker else content, flagged, row.line))
    return case
