"""Deletes the traces of a text from the audit log, the verdicts and the files of the review queue."""

from collections.abc import Iterable
from pathlib import Path

from stages.data.lines import GZIP_MAGIC
from stages.errors import UserError
from stages.serve.audit import FILES
from stages.serve.fingerprint import fingerprint, locked
from stages.serve.review import drop_rows, is_of


def forget(text: str, audit_folder: Path, others: Iterable[Path]) -> dict[Path, int]:
    """Deletes the rows of a text, and returns how many there were in each file. A running server need not stop.

    Args:
        text: the text. Blanks around it and kinds of line ends don't matter.
        audit_folder: folder of the audit log.
        others: verdicts and files of the review queue. Those that don't exist are left out.

    Raises UserError for a file that is compressed.
    """
    key = fingerprint(text)
    with locked(audit_folder):
        files = [*sorted(audit_folder.glob(FILES)), *(file for file in others if file.exists())]
        for file in files:
            if file.open("rb").read(2) == GZIP_MAGIC:
                raise UserError(f"{file} is compressed, so rows can't be deleted from it: unpack it, and try again")
        return {file: drop_rows(file, lambda row: is_of(row, key)) for file in files}
