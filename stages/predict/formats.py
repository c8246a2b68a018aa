"""The formats of files that predict reads and writes, by the ending of their names."""

from enum import StrEnum
from pathlib import Path
from typing import Any

from stages.errors import UserError


class Format(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


DELIMITERS = {Format.CSV: ",", Format.TSV: "\t"}
# Endings of formats that nothing here writes. JSON Lines under such a name would open nowhere.
FOREIGN = {
    *(".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"),
    *(".feather", ".arrow", ".ipc", ".avro", ".orc", ".pq", ".h5", ".hdf5", ".npy", ".npz", ".pkl", ".pickle"),
    *(".xml", ".html", ".htm", ".yaml", ".yml", ".pdf", ".doc", ".docx", ".rtf"),
    *(".db", ".sqlite", ".sqlite3", ".duckdb", ".sql", ".dta", ".sav", ".sas7bdat"),
    *(".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".lz4", ".7z", ".rar"),
}


def format_of(path: Path) -> Format:
    """The format that a file's name ends in, before .gz. Any other name, such as that of a pipe, is JSON Lines."""
    name = path.name.lower().removesuffix(".gz")
    return next((each for each in Format if name.endswith(f".{each}")), Format.JSONL)


def require_writable_format(out: Path) -> None:
    """Raises UserError if the name of `--out` ends in a format that predict can't write."""
    ending = Path(out.name.lower().removesuffix(".gz")).suffix
    if ending in FOREIGN:
        raise UserError(
            f"--out {out}: predict writes no {ending}; expected a name in .jsonl, .csv or .tsv, each also with .gz, or "
            "in .parquet"
        )


def is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def pyarrow() -> Any:
    """The package that reads and writes Parquet. Raises UserError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "a Parquet file needs the package pyarrow, which is not installed: run `pip install -r "
            "requirements-tables.txt`, or use CSV or JSON Lines"
        ) from None
    return pyarrow
