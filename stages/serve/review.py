"""People's verdicts on texts, in a file that prepare reads, and the texts that wait for one."""

import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.data.jsonl import parse_json_object, read_jsonl
from stages.data.lines import DataError
from stages.data.values import identifier, input_text
from stages.errors import UserError
from stages.serve.audit import append, now, timestamp
from stages.serve.fingerprint import fingerprint, locked

MOST_READ = 50_000  # rows of the files of a queue, the newest
OWN_GROUP = "review-"  # before the start of the fingerprint, for texts that belong to no case


@dataclass(frozen=True)
class Waiting:
    """A text that waits for a verdict. probability: of fraud. source: file and line. group: its case."""

    input: str
    probability: float
    source: str
    group: str = ""


class Verdicts:
    """The file of verdicts: one row a text, in the form that prepare reads.

    A row has input, label, source, time and group, and the probability that the model gave. A text of no case gets a
    group of its own, so that prepare doesn't find rows with and without one.

    Args:
        path: of the file. It may not exist yet.
        lock_folder: the folder whose lock the server and `--forget` share.
    """

    def __init__(self, path: Path, lock_folder: Path):
        self.path, self.lock_folder = path, lock_folder

    def add(self, text: str, label: bool, source: str, group: str = "", probability: float | None = None) -> int:
        """Writes a verdict, in place of an earlier one on the same text. Returns the number of rows.

        Without a group, the earlier verdict's stays: only with it does prepare know the text's case.

        Args:
            text: as it was shown.
            label: true for fraud.
            source: where the text comes from.
            group: the case that it belongs to.
            probability: of fraud, by the model.
        """
        key = fingerprint(text)
        with locked(self.lock_folder):
            rows = self.rows()
            others = rows.keys() - {key}
            earlier = json.loads(rows[key]).get("group") if key in rows else ""
            row = {
                "input": text,
                "label": label,
                "source": source,
                "time": timestamp(now()),
                "group": group or (isinstance(earlier, str) and earlier) or OWN_GROUP + key[:16],
                **({} if probability is None else {"probability": probability}),
            }
            data = (json.dumps(row, ensure_ascii=False) + "\n").encode()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not drop_rows(self.path, lambda row: is_of(row, key), data):
                append(self.path, data)
        return len(others) + 1

    def remove(self, text: str) -> bool:
        """Takes a verdict back. Returns whether there was one."""
        with locked(self.lock_folder):
            return drop_rows(self.path, lambda row: is_of(row, fingerprint(text))) > 0

    def labels(self) -> dict[str, bool]:
        """The label of each judged text, by its fingerprint."""
        return {key: json.loads(line)["label"] for key, line in self.rows().items()}

    def rows(self) -> dict[str, str]:
        """The rows with a text and a label, as the file has them, by the text's fingerprint."""
        if not self.path.exists():
            return {}
        found = {}
        for row in read_jsonl(self.path):
            text, label = row.values.get("input"), row.values.get("label")
            if isinstance(text, str) and isinstance(label, bool):
                found[fingerprint(text)] = row.raw
        return found


def is_of(row: Mapping[str, Any], key: str) -> bool:
    """Whether a row is of the text with this fingerprint."""
    return row.get("sha256") == key or (isinstance(row.get("input"), str) and fingerprint(row["input"]) == key)


def drop_rows(path: Path, goes: Callable[[Mapping[str, Any]], bool], added: bytes = b"") -> int:
    """Replaces a file by one without some of its rows. Returns how many were left out. Without any, nothing is written.

    Args:
        path: JSON Lines, not compressed. A line that holds no object stays as it is.
        goes: says of a row whether it is left out.
        added: lines to append.
    """
    kept: list[bytes] = []
    left_out = 0
    for line in io.BytesIO(path.read_bytes() if path.exists() else b""):
        row = object_in(line)
        if row is not None and goes(row):
            left_out += 1
        else:
            kept.append(line if line.endswith(b"\n") else line + b"\n")
    if left_out:
        replace_file(path, b"".join([*kept, added]))
    return left_out


def object_in(line: bytes) -> dict[str, Any] | None:
    try:
        return parse_json_object(line)
    except ValueError:
        return None


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file whole or not at all, with the mode that it has."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, path.stat().st_mode & 0o777)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def require_classified(path: Path) -> None:
    """Raises UserError unless a file begins with a row of JSON with `input` and `probability`, as predict writes it."""
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), None)
    if first and not {"input", "probability"} <= (object_in(first) or {}).keys():
        raise UserError(
            f"{path}: its first row is no JSON object with the keys input and probability; expected JSON Lines that "
            "predict wrote of texts at the key input: from another row no text is shown, and none is deleted"
        )


def read_waiting(paths: Iterable[Path]) -> list[Waiting]:
    """The classified rows of files, the newest MOST_READ of them: a row without text or probability is left out."""
    found = [row for path in paths if path.exists() for row in rows_of(path)]
    return found[-MOST_READ:]


def rows_of(path: Path) -> Iterator[Waiting]:
    try:
        for row in read_jsonl(path):
            try:
                values = row.require_values()
                text, probability = input_text(values), values.get("probability")
                group = identifier(values, "group")
            except ValueError:
                continue
            if isinstance(probability, float | int) and 0 <= probability <= 1:
                yield Waiting(text, float(probability), f"{path.name}:{row.line}", group)
    except DataError:  # empty, or no JSON Lines: there is nothing to judge
        return


def choose(
    waiting: Iterable[Waiting], judged: Iterable[str], low: float, high: float, order: str, threshold: float
) -> list[Waiting]:
    """The texts that wait, each once, with the group that any of its rows has: the audit log knows of none.

    Args:
        waiting: classified texts, the newest last.
        judged: fingerprints of texts that have a verdict.
        low, high: bounds of the probability of fraud, inclusive.
        order: informative, nearest to the threshold first; or newest.
        threshold: the probability from which on a text is called fraud.
    """
    keys = {row: fingerprint(row.input) for row in waiting}
    groups = {keys[row]: row.group for row in keys if row.group}
    seen = set(judged)
    found = []
    for row, key in reversed(keys.items()):
        if key not in seen and low <= row.probability <= high:
            seen.add(key)
            found.append(replace(row, group=groups.get(key, "")))
    if order == "informative":
        found.sort(key=lambda row: abs(log_odds(row.probability) - log_odds(threshold)))
    return found


def log_odds(probability: float) -> float:
    """Log-odds of a probability, which may be 0 or 1."""
    bounded = min(max(probability, 1e-12), 1 - 1e-12)
    return math.log(bounded / (1 - bounded))
