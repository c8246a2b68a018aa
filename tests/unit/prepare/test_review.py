"""A file of judged texts is a further file of a pool: its rows stay with the case and the texts that they belong to."""

import json
from pathlib import Path

import pytest

from stages import params
from stages.prepare.manifest import read_manifest, write_manifest
from stages.prepare.sources import read_sources
from stages.prepare.split import drop_rows, split_pool, split_sources
from tests.conftest import ROOT

POOL = [json.loads(line) for line in (ROOT / "data/sample/pool.jsonl").read_text("utf-8").splitlines()[:300]]
NUMBERS = range(0, 300, 10)  # rows that a judged text resembles, or whose case it belongs to


def judged(number: int, by: str) -> dict:
    """A judged text as the review page writes it, that belongs to a row of the pool by its text or by its group."""
    row = POOL[number]
    text = row["input"] + "，谢谢" if by == "text" else f"另一句话{number * 7919}{chr(0x4E00 + 97 * number) * 9}"
    group = row["group"] if by == "group" else ""
    return {"input": text, "label": row["label"], "source": "page", "time": "2026-11-26T10:00:00Z", "group": group}


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def places() -> dict[str, tuple[str, int]]:
    """Split and fold of each row, by its file and line, as prepare makes them."""
    chosen = params.load()
    own, _ = read_sources(chosen)
    assert not own["pool"].rejected
    splits, _ = drop_rows(split_sources({"pool": own["pool"].examples}, chosen)[0], chosen)
    return {e.source: (name, e.fold) for name, rows in splits.items() for e in rows}


@pytest.mark.parametrize("by", ["text", "group"])
@pytest.mark.parametrize("with_manifest", [False, True])
def test_a_judged_text_is_in_the_split_and_the_fold_of_its_unit(project, tmp_path, by, with_manifest):
    write(tmp_path / "data/raw/pool.jsonl", POOL)
    write(tmp_path / "data/raw/reviewed.jsonl", [judged(number, by) for number in NUMBERS])
    values = {"datasets/sample": {"pool": ["data/raw/pool.jsonl"]}}
    project({}, values)
    before = places()
    values["datasets/sample"]["pool"].append("data/raw/reviewed.jsonl")
    if with_manifest:
        chosen = params.load()
        write_manifest(
            tmp_path / "data/raw/m", split_pool(read_sources(chosen)[0]["pool"].examples, chosen.prepare), []
        )
        assert read_manifest(tmp_path / "data/raw/m")
        values["prepare/manifest"] = "data/raw/m"
    project({}, values)
    after = places()
    pairs = [(f"pool.jsonl:{number + 1}", f"reviewed.jsonl:{n}") for n, number in enumerate(NUMBERS, 1)]
    assert all(after[known] == after[new] for known, new in pairs)
    assert {after[new][0] for _, new in pairs} == {"train", "valid", "test"}
    if with_manifest:
        assert {source: after[source] for source in before} == before


def test_a_judged_text_of_no_case_is_a_unit_of_its_own(project, tmp_path):
    write(tmp_path / "data/raw/pool.jsonl", POOL)
    new = [judged(number, "group") | {"group": None} for number in NUMBERS]
    write(tmp_path / "data/raw/reviewed.jsonl", new)
    project({}, {"datasets/sample": {"pool": ["data/raw/pool.jsonl", "data/raw/reviewed.jsonl"]}})
    found = places()
    assert len(found) == len(POOL) + len(new)
    assert len({found[f"reviewed.jsonl:{n}"] for n in range(1, len(new) + 1)}) > 3
