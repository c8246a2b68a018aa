"""Excel workbooks by pandas, Parquet by the library `datasets`. Both are installed by requirements-tables.txt."""

import datetime
import glob
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from stages.data.layout import ROLES, Layout
from stages.data.lines import DataError, check_command, missing_file_advice
from stages.data.row import Row
from stages.data.values import EXACT, shorten
from stages.errors import UserError
from stages.paths import RUNS

NEEDED = "needs {}: run `pip install -r requirements-tables.txt`, or export the table as CSV in UTF-8"
BATCH = 1000  # rows


def read_excel(path: Path, layout: Layout) -> Iterator[Row]:
    """Yields the rows of the one sheet that has the columns. Numbers and times become texts, as in a CSV export.

    Raises DataError if no sheet has them, or several: which of them are meant, or whether all are, is not known.
    """
    found, shown = [], []
    for name, rows in sheets(path).items():
        if not rows:
            continue
        columns = [str(cell).strip() for cell in rows[0][1]]
        if layout.without_header:
            columns = [str(number) for number in range(1, len(columns) + 1)]
        shown.append(columns)
        if layout.found_in(columns):
            found.append((name, columns, rows if layout.without_header else rows[1:]))
    if len(found) > 1:
        raise DataError(
            f"{path} has several sheets with the columns {', '.join(layout.required)}: "
            f"{', '.join(name for name, _, _ in found)}; expected one: save each as a file, and list them as `pool`"
        )
    if not found:
        raise DataError(
            f"{path} has sheets that begin with the columns {shorten(shown, 300)}; expected "
            f"{', '.join(layout.required)}, each once, in the first row of a sheet: name its columns in the entry "
            f"({check_command(path)} prints one)"
        )
    _, columns, rows = found[0]
    for line, cells in rows:
        yield Row(line, as_json(cells), dict(zip(columns, cells, strict=True)), of_table=True)


def sheets(path: Path) -> dict[str, list[tuple[int, list[Any]]]]:
    """The rows of each sheet that are not blank, by its name: number, from 1, and cells as texts."""
    try:
        import openpyxl  # noqa: F401  pandas needs it
        import pandas
    except ImportError:
        raise UserError(f"{path}: an Excel workbook {NEEDED.format('pandas and openpyxl')}") from None
    try:
        found = pandas.read_excel(
            path, sheet_name=None, header=None, dtype=object, na_filter=False, keep_default_na=False, engine="openpyxl"
        )
    except Exception as error:  # openpyxl lets errors of zip, XML and its own code through
        raise DataError(
            f"{path} is no Excel workbook that can be read ({type(error).__name__}: {error}): "
            f"{missing_file_advice(path)}"
        ) from None
    return {str(name): list(filled_rows(frame.values.tolist())) for name, frame in found.items()}


def filled_rows(sheet: list[list[Any]]) -> Iterator[tuple[int, list[Any]]]:
    """Yields the number, from 1, and the texts of each row that is not blank."""
    for line, cells in enumerate(sheet, 1):
        values = list(map(as_text, cells))
        if any(str(value).strip() for value in values):
            yield line, values


def read_parquet(path: Path, layout: Layout | None) -> Iterator[Row]:
    """Yields the rows of a Parquet file, with the columns of the layout; None takes all.

    The line of a row is its number, from 1.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(f"{path}: a Parquet file {NEEDED.format('datasets')}") from None
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it also raises the errors that it logs
    number = 0
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RUNS) as cache:  # the rows are streamed, so it only holds a lock
        try:
            rows = datasets.load_dataset(
                "parquet", data_files=glob.escape(str(path)), split="train", streaming=True, cache_dir=cache
            )
            names = list(rows.column_names or [])
            if layout:
                require(path, names, layout)
                rows = rows.select_columns([name for name in names if name in map(layout.name, ROLES)])
            words = {name: kind.names for name, kind in rows.features.items() if hasattr(kind, "names")}
            for batch in rows.iter(BATCH):
                for cells in zip(*batch.values(), strict=True):
                    number += 1
                    values = dict(zip(batch, map(plain, cells), strict=True))
                    values |= {name: named(values[name], of_class) for name, of_class in words.items()}
                    yield Row(number, as_json(values), values)
        except DataError:
            raise
        except (OSError, ValueError, NotImplementedError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"{path} is no Parquet file that can be read: {error}; expected a whole one") from None


def named(value: Any, names: list[str]) -> Any:
    """The name of a class that `datasets` wrote as a number: 0 may be the name "fraud"."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def require(path: Path, names: list[str], layout: Layout) -> None:
    """Raises DataError if a Parquet file lacks a column."""
    if layout.without_header or any(name not in names for name in layout.required):
        raise DataError(
            f"{path} has the columns {shorten(names, 300)}; expected {', '.join(layout.required)}: name its columns in "
            f"the entry ({check_command(path)} prints one)"
        )


def plain(value: Any) -> Any:
    """A value without types that JSON lacks: times and decimal numbers as texts, NaN as nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def as_text(value: Any) -> Any:
    """A cell as a text. A number from 2^53 on stays one, since the workbook has rounded it."""
    value = plain(value)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= EXACT):
        return "" if value is None else float(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).removesuffix("T00:00:00") if isinstance(value, str) else str(value)


def as_json(values: list[Any] | Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, default=repr)
