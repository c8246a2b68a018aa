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


def format_of(path: Path) -> Format:
    """The format that a file's name ends in, before .gz. Any other name, such as that of a pipe, is JSON Lines."""
    name = path.name.lower().removesuffix(".gz")
    return next((each for each in Format if name.endswith(f".{each}")), Format.JSONL)


def is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def pyarrow() -> Any:
    """The package that reads and writes Parquet. Raises UserError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "a Parquet file needs the package pyarrow, which is not installed: run `pip install -r "
            "requirements-tables.txt`, or use CSV or JSON Lines"
        ) from None
    return pyarrow
