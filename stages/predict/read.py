"""The texts to judge; all of them or none, so that rows stay in order."""

from pathlib import Path

from stages.text.jsonl import DataError, input_text, lines, parse_object

SHOWN = 10


def read_inputs(path: Path) -> list[str]:
    """The `input` of each row, in order. Raises DataError that lists the first rows without one."""
    texts, bad = [], []
    for number, line in lines(path):
        try:
            texts.append(input_text(parse_object(line)))
        except ValueError as error:
            bad.append(f"  {path}:{number}: {error}")
    if bad or not texts:
        shown = "\n".join(bad[:SHOWN]) or f"  {path} is empty"
        raise DataError(
            f"{len(bad)} of {len(bad) + len(texts)} rows hold no text to judge:\n{shown}\nMend them and run again."
        )
    return texts
