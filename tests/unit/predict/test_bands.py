"""With select.bands each row has a band, in every format."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages.artifacts import read_json, write_json
from stages.bands import BANDS
from tests.unit.predict.process import Started


@pytest.fixture(scope="module")
def banded(folder, undisturbed, tmp_path_factory) -> Path:
    """The project with bands that a third of the file falls into each."""
    copy = Path(shutil.copytree(folder, tmp_path_factory.mktemp("banded") / "project"))
    probabilities = [json.loads(line)["probability"] for line in undisturbed.splitlines()]
    review, block = np.quantile(probabilities, (1 / 3, 2 / 3), method="nearest").tolist()
    record = read_json(copy / "models/selected/selected.json")
    write_json(copy / "models/selected/selected.json", record | {"bands": {"review": review, "block": block}})
    return copy


def expected(row: dict, folder: Path) -> str:
    edges = read_json(folder / "models/selected/selected.json")["bands"]
    if float(row["probability"]) >= edges["block"]:
        return "block"
    return "review" if float(row["probability"]) >= edges["review"] else "pass"


def test_each_format_has_the_band_that_the_probability_gives(banded, file, undisturbed, tmp_path):
    for source, out in ((file, "o.jsonl"), (file, "o.csv"), (file, "o.parquet"), (tmp_path / "o.parquet", "p.parquet")):
        started = Started(banded, "--file", source, "--out", tmp_path / out)
        assert started.wait() == 0, started.said
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_bytes().splitlines()]
    assert {row["band"] for row in rows} == set(BANDS)
    assert [row["band"] for row in rows] == [expected(row, banded) for row in rows]
    bands = [row.pop("band") for row in rows]
    assert rows == [json.loads(line) for line in undisturbed.splitlines()]
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as table:
        assert [row["band"] for row in csv.DictReader(table)] == bands
    for name in ("o.parquet", "p.parquet"):
        assert pq.read_table(tmp_path / name).column("band").to_pylist() == bands


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_band_of_an_earlier_verdict_goes_with_a_model_without_bands(folder, banded, file, tmp_path, ending):
    first, second, plain = (tmp_path / f"{name}.{ending}" for name in ("first", "second", "plain"))
    for project, source, out in ((banded, file, first), (folder, first, second), (folder, file, plain)):
        assert Started(project, "--file", source, "--out", out).wait() == 0
    assert b"band" in first.read_bytes()
    if ending == "parquet":  # whose columns stay
        rows = pq.read_table(second).to_pylist()
        assert {row.pop("band") for row in rows} == {None}
        assert rows == pq.read_table(plain).to_pylist()
    else:
        assert second.read_bytes() == plain.read_bytes()


def test_a_column_of_that_name_stays_without_bands_and_is_replaced_with_them(folder, banded, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"input": "您好，您的快递到了。", "band": "own"}\n')
    for project, name in ((folder, "o.parquet"), (banded, "b.parquet")):
        Started(project, "--file", tmp_path / "a.jsonl", "--out", tmp_path / name).wait()
    (own,), (replaced,) = (pq.read_table(tmp_path / name).to_pylist() for name in ("o.parquet", "b.parquet"))
    assert (own["band"], replaced["band"]) == ("own", expected(replaced, banded))
    started = Started(folder, "--file", tmp_path / "o.parquet", "--out", tmp_path / "again.parquet")
    assert started.wait() == 0, started.said
    assert pq.read_table(tmp_path / "again.parquet").to_pylist() == [own]
