"""Adds parity.json of exported folders to results/exports.json, and writes the table of docs/export.md from it.

python -m tools.exports exports/* [--device "AMD EPYC with bfloat16"]
python -m tools.exports          (the table alone, from results/exports.json)
"""

import argparse
import json
from pathlib import Path
from typing import Any

from stages.artifacts import read_json

RESULTS = Path("results/exports.json")
PAGE = Path("docs/export.md")
BEGIN, END = "<!-- parity table -->\n", "<!-- end of the parity table -->\n"
ORDER = ("classifier", "onnx", "merged", "adapter", "gguf")


def collect(folders: list[Path], known: dict[str, Any], device: str | None = None) -> dict[str, Any]:
    """The known figures and those of each folder, by kind, weights and device, with what made them.

    Args:
        folders: of exports.
        known: what results/exports.json holds.
        device: a name that tells this machine from others of the same name; None for the name in the figures.
    """
    found = dict(known)
    for folder in folders:
        record, parity = read_json(folder / "export.json"), read_json(folder / "parity.json")
        if device:
            parity["environment"]["device"] = device
        made = {key: record[key] for key in ("trained_with", "dataset", "versions")} | {"base": record["base"]["id"]}
        found[f"{record['kind']}-{record['weights']}: {device_of(parity)}"] = parity | made
    return dict(sorted(found.items(), key=lambda item: (ORDER.index(item[1]["kind"]), item[0])))


def device_of(figures: dict[str, Any]) -> str:
    """The device's name and number of threads, without trade marks."""
    return str(figures["environment"]["device"]).replace("(R)", "").replace(" Processor", "")


def table(results: dict[str, Any]) -> str:
    """Markdown: a row for each export, and what was measured with what."""
    lines = [
        "| kind | weights | device | MB | rows of valid | largest difference | mean | special texts | rank correlation "
        "| decisions changed | average precision, difference |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for figures in results.values():
        valid = figures["valid"]
        final = figures.get("recalibrated", valid)
        cells = [
            figures["kind"],
            figures["weights"],
            device_of(figures),
            f"{figures['bytes'] / 1e6:,.0f}",
            str(valid["rows"]),
            f"{final['log_odds_largest_difference']:.2g}",
            f"{final['log_odds_mean_difference']:.2g}",
            f"{valid['hostile_largest_difference']:.2g}",
            f"{final['rank_correlation']:.4f}",
            str(final["decisions_changed"]),
            f"{final['average_precision_difference']:+.4f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *caption(results)]) + "\n"


def caption(results: dict[str, Any]) -> list[str]:
    """What was exported, hardware, date, load and versions, in sentences."""

    def listed(key: str, inside: str = "") -> str:
        values = [figures[inside][key] if inside else figures[key] for figures in results.values()]
        return ", ".join(dict.fromkeys(values))

    busy = [figures["load_average"] for figures in results.values()]
    libraries = ("torch", "transformers", "peft", "bitsandbytes", "onnxruntime", "llama-cpp-python")
    versions: dict[str, str] = {}
    for figures in results.values():
        versions |= figures["versions"]
    return [
        f"{listed('base')}, trained with `{listed('trained_with')}` on `{listed('dataset')}`. "
        f"{' and '.join(sorted({device_of(figures) for figures in results.values()}))}, {listed('date')}.",
        f"Load average {min(busy):.1f} to {max(busy):.1f}, so speeds are in `{RESULTS}` alone.",
        f"Versions: {', '.join(f'{name} {versions[name]}' for name in libraries if name in versions)}.",
    ]


def with_table(page: str, results: dict[str, Any]) -> str:
    """The page with the table renewed."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + table(results) + END + rest.split(END)[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.exports", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of an export")
    parser.add_argument("--device", help="the machine's name, where others have the same")
    arguments = parser.parse_args()
    if arguments.folders:
        known = read_json(RESULTS) if RESULTS.is_file() else {}
        found = collect(arguments.folders, known, arguments.device)
        text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
        RESULTS.write_text(f"{text}\n", encoding="utf-8")
    results = read_json(RESULTS)
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
