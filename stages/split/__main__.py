"""Writes a manifest, a file that records the split of each row of the selected pool.

Set prepare.manifest to it: then the rows keep their split when others are added, removed or shuffled, and only new
ones are dealt out. Writing over the manifest in use adds the new rows to it. It holds hashes of texts, no text.
"""

import argparse
import dataclasses
from pathlib import Path

from stages import params
from stages.command import run
from stages.errors import UserError
from stages.params import unseen_path
from stages.prepare.manifest import compare_with, read_manifest, write_manifest
from stages.prepare.read import limit_rejected, together
from stages.prepare.sources import read_sources, texts_as_trained
from stages.prepare.split import split_pool


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.split", description=__doc__)
    parser.add_argument(
        "--write",
        type=Path,
        required=True,
        metavar="FILE",
        help="below data/raw or data/sample, e.g. data/raw/manifest",
    )
    file: Path = parser.parse_args().write
    chosen = params.load()
    in_use = chosen.prepare.manifest
    require_name(file, in_use)
    own, _ = read_sources(chosen)
    if "pool" not in own:
        raise UserError(
            f"datasets.{chosen.dataset_name} has splits of its own, which stay as they are; expected a data set with "
            "`pool` or `dialogues`"
        )
    if "time" in chosen.dataset.columns:
        raise UserError(
            f"datasets.{chosen.dataset_name} is split by time, which needs no manifest; expected no columns.time"
        )
    limit_rejected(together(own.values()), chosen.prepare.max_rejected_fraction)
    manifest = read_manifest(Path(in_use)) if in_use else []
    pool = texts_as_trained(own, chosen.removes_speakers)["pool"]
    splits = split_pool(pool, dataclasses.replace(chosen.prepare, fold=None), manifest)
    write_manifest(file, splits, manifest)
    counts = compare_with(manifest, splits)
    sizes = ", ".join(f"{name} {len(rows)}" for name, rows in splits.items())
    print(f"split: {sizes} rows; {counts['known']} known before, {counts['new']} new, {counts['gone']} gone and kept")
    if not in_use or Path(in_use) != file:
        print(f"split: now set prepare.manifest: {file.as_posix()} in params.yaml")


def require_name(file: Path, in_use: str | None) -> None:
    """Raises UserError if DVC would not see the file, or if it exists and is not the manifest in use."""
    for problem in unseen_path(file.as_posix()):
        raise UserError(f"--write: {problem}")
    if file.exists() and (in_use is None or file.resolve() != Path(in_use).resolve()):
        raise UserError(
            f"--write: {file} exists and is not prepare.manifest ({in_use}); expected a new name, or that of the "
            "manifest in use"
        )


if __name__ == "__main__":
    run(main)
