"""The raw rows of a data set and of the further sets, and the texts in them as the model reads them."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from stages.data.lines import DataError
from stages.data.speakers import remove_speakers
from stages.params import Params
from stages.prepare.dialogues import read_dialogues
from stages.prepare.leaks import Sets
from stages.prepare.read import Rows, read_labelled, together
from stages.text.example import Example


def read_sources(chosen: Params) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """The rows of the data set (a pool, or train, valid and test), and those of each further set."""
    dataset, further = chosen.dataset, chosen.evaluate.further
    splits = {} if dataset.pools or dataset.dialogues else {n: getattr(dataset, n) for n in ("train", "valid", "test")}
    names = source_names([*dataset.pools, *splits.values(), *further.values()])

    def read(path: str) -> Rows:
        return read_labelled(Path(path), names[path], dataset.layout)

    if dataset.dialogues:
        own = {"pool": read_dialogues(Path(dataset.dialogues), chosen.prepare)}
    elif dataset.pools:
        require_different(dataset.pools)
        own = {"pool": together(map(read, dataset.pools))}
    else:
        own = {name: read(path) for name, path in splits.items()}
    return own, {name: read_labelled(Path(path), names[path]) for name, path in further.items()}


def source_names(paths: list[str]) -> dict[str, str]:
    """The name of each file in the source of its rows.

    It is the file's own name. If two files share that, it is the path below data/raw or data/sample; if two share that
    as well, it is the whole path.
    """
    ways = (lambda file: file.name, lambda file: Path(*file.parts[2:]).as_posix(), Path.as_posix)
    counts = [Counter(map(way, set(map(Path, paths)))) for way in ways]
    names = {}
    for path in paths:
        tried = [(way(Path(path)), count) for way, count in zip(ways, counts, strict=True)]
        names[path] = next(name for name, count in tried if count[name] == 1)
    return names


def require_different(paths: list[str]) -> None:
    """Raises DataError if a pool lists a file twice, under one name or two."""
    found: dict[Path, str] = {}
    for path in paths:
        file = Path(path).resolve()
        if file in found:
            raise DataError(
                f"the pool lists {path} and {found[file]}, which are one file: its rows would count twice. Remove one"
            )
        found[file] = path


def texts_as_trained(sources: Mapping[str, Rows], without_speakers: bool) -> Sets:
    """The examples of each source, without the names in front of lines if the model reads them so."""
    if not without_speakers:
        return {name: rows.examples for name, rows in sources.items()}
    return {name: list(map(strip_speakers, rows.examples)) for name, rows in sources.items()}


def texts_as_read(sources: Mapping[str, Rows], examples: list[Example]) -> list[Example]:
    """The examples as their files have them, before names were removed."""
    original = {example.source: example for rows in sources.values() for example in rows.examples}
    return [original[example.source] for example in examples]


def strip_speakers(example: Example) -> Example:
    return dataclasses.replace(example, input=remove_speakers(example.input))
