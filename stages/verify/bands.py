"""Two sets of figures beside each other, with the bands in which they may differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ROUNDING = 1e-12
# What to look at where a system's figures moved. Later ones build on earlier ones, so the first that moved counts.
LOOK_AT = {
    "size": "the rows of test: metrics/data.json, and `git diff` of data/ and prepare",
    "baseline": "data/processed and the version of scikit-learn: metrics/data.json",
    "zero_shot": "models/base/base.json and the arithmetic: environment in models/probe.json",
    "probe": "models/probe.json, and versions of torch and bitsandbytes",
    "combined_cheap": "models/probe.json",
    "model": "the training: metrics/plots/train.csv, metrics/plots/valid.csv and models/train.json; `make seeds` "
    "shows how much a seed moves it",
    "combined": "the rows for model and baseline above",
}
NEEDS = {"combined": {"model", "baseline"}, "combined_cheap": {"probe", "baseline"}}


@dataclass(frozen=True)
class Row:
    """A figure: the committed one, the one found, and how far they may differ. None: there is no such figure."""

    system: str
    metric: str
    old: float | None
    new: float | None
    band: float

    @property
    def name(self) -> str:
        return f"{self.system}.{self.metric}"

    @property
    def within(self) -> bool:
        return self.old is not None and self.new is not None and abs(self.new - self.old) <= self.band + ROUNDING


def compare_figures(
    old: Mapping[str, Any], new: Mapping[str, Any], bands: Mapping[str, Mapping[str, float]]
) -> list[Row]:
    """A row for each band.

    Args:
        old: the committed metrics/evaluate.json.
        new: the one found.
        bands: by system and metric.
    """
    return [
        Row(system, metric, old.get(system, {}).get(metric), new.get(system, {}).get(metric), band)
        for system, of_system in bands.items()
        for metric, band in of_system.items()
    ]


def format_table(rows: list[Row]) -> Iterator[str]:
    """Yields the lines of a table."""
    cells = [("figure", "committed", "found", "difference", "band", "")]
    for row in rows:
        difference = "" if row.old is None or row.new is None else f"{row.new - row.old:+.4f}"
        verdict = "within" if row.within else "OUTSIDE"
        cells.append((row.name, number(row.old), number(row.new), difference, f"{row.band:g}", verdict))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4f}".removesuffix(".0000")


def other_versions(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yields the device and the versions in which two runs differ."""
    one, other = old.get("environment", {}), new.get("environment", {})
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            yield f"{key}: committed {one.get(key, 'none')}, here {other.get(key, 'none')}"


def look_at(outside: list[Row]) -> Iterator[str]:
    """Yields what to look at: for each system that moved, but for sums of systems that moved themselves."""
    moved = dict.fromkeys(row.system for row in outside)
    for system in moved:
        if not NEEDS.get(system, set()) & moved.keys():
            yield LOOK_AT.get(system, f"{system} in metrics/evaluate.json")
