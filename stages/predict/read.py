"""The rows to judge; all of them or none, so that they stay in order."""

import json
from pathlib import Path
from typing import Any

from stages.text.jsonl import DataError, input_text, lines, parse_object, require_encodable

SHOWN = 10


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows in order, each with a text in `input`. Raises DataError that lists the first rows without one."""
    rows, bad = [], []
    for number, line in lines(path):
        try:
            row = parse_object(line)
            input_text(row)
            require_encodable(json.dumps(row, ensure_ascii=False))  # other keys are written again
            rows.append(row)
        except ValueError as error:
            bad.append(f"  {path}:{number}: {error}")
    if bad:
        shown = "\n".join(bad[:SHOWN])
        raise DataError(f"{len(bad)} of {len(bad) + len(rows)} rows hold no text to judge:\n{shown}\nMend them first.")
    if not rows:
        raise DataError(f"{path} is empty; expected JSON Lines with the key input")
    return rows
