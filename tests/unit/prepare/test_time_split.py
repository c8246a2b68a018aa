"""A pool with times: train before valid before test, units whole."""

import datetime
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import params
from stages.data.lines import DataError
from stages.data.values import parse_time
from stages.prepare.__main__ import main as prepare_main
from stages.prepare.time_split import names_by_time
from stages.text.example import Example, read_examples
from tests.conftest import ROOT
from tests.unit.prepare.tables import encode

PREPARE = params.load(ROOT / "params.yaml").prepare
DAY = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), min_size=3, max_size=80), st.randoms())
def test_train_ends_before_valid_and_valid_before_test(rows, random):
    units = np.unique([unit for unit, _ in rows], return_inverse=True)[1]
    pool = [Example(f"t{n}", True, source=f"f:{n}") for n in range(len(rows))]
    days = {f"f:{n}": day for n, (_, day) in enumerate(rows)}
    latest = {unit: max(d for u, (_, d) in zip(units, rows, strict=True) if u == unit) for unit in units}
    times = {source: DAY + datetime.timedelta(days=day) for source, day in days.items()}
    if len(set(latest.values())) < 3:
        with pytest.raises(DataError, match="different times of units"):
            names_by_time(pool, units, times, PREPARE)
        return
    names, found = names_by_time(pool, units, times, PREPARE)
    of_unit = {unit: {names[row] for row in np.flatnonzero(units == unit)} for unit in latest}
    assert all(len(split) == 1 for split in of_unit.values())
    ends = {name: [latest[u] for u in latest if of_unit[u] == {name}] for name in ("train", "valid", "test")}
    assert max(ends["train"]) < min(ends["valid"]) <= max(ends["valid"]) < min(ends["test"])
    assert found["train_until"] == (DAY + datetime.timedelta(days=max(ends["train"]))).isoformat()
    early = [n for n, (_, day) in enumerate(rows) if names[n] != "train" and day <= max(ends["train"])]
    assert found["held_out_rows_before"] == len(early)


def test_the_fractions_are_those_asked_for():
    pool = [Example(f"t{n}", True, source=f"f:{n}") for n in range(200)]
    times = {f"f:{n}": DAY + datetime.timedelta(hours=n) for n in range(200)}
    asked = replace(PREPARE, valid_fraction=0.1, test_fraction=0.3)
    names, _ = names_by_time(pool, np.arange(200), times, asked)
    assert names.tolist() == ["train"] * 120 + ["valid"] * 20 + ["test"] * 60


def test_prepare_splits_by_time_and_says_so(project, capsys):
    rows = [
        {
            "input": f"第{n}句{chr(0x4E00 + 97 * n) * 9}",
            "label": n % 3 == 0,
            "sent": f"2024-{1 + n // 28:02}-{1 + n % 28:02}",
        }
        for n in range(120)
    ]
    rows[7]["sent"] = "1/5/2024"
    entry = {"pool": "data/raw/a.jsonl", "columns": {"time": "sent"}}
    changes = {"datasets/sample": entry, "prepare/manifest": "data/raw/m"}
    project({"a.jsonl": encode(rows).decode()}, changes)
    with pytest.raises(DataError, match="prepare.manifest is data/raw/m, but columns.time splits by time"):
        prepare_main()
    project({}, {"datasets/sample": entry})
    prepare_main()
    sets = {name: read_examples(Path(f"data/processed/{name}.jsonl")) for name in ("train", "valid", "test")}
    numbers = {name: [int(e.source.split(":")[1]) for e in found] for name, found in sets.items()}
    assert max(numbers["train"]) < min(numbers["valid"]) <= max(numbers["valid"]) < min(numbers["test"])
    report = json.loads(Path("metrics/data.json").read_text(encoding="utf-8"))
    day = rows[max(numbers["train"]) - 1]["sent"]
    assert report["time"]["train_until"] == f"{day}T00:00:00+00:00"
    assert f"by time: train until {day}" in capsys.readouterr().out
    assert "sent is '1/5/2024'; expected a time" in Path("data/processed/rejected.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-05-01", "2024-05-01T00:00:00"),
        (20240501, "2024-05-01T00:00:00"),
        ("2024/5/1 9:05", "2024-05-01T09:05:00"),
        ("2024年5月1日", "2024-05-01T00:00:00"),
        ("2024-05-01T10:00:00+08:00", "2024-05-01T02:00:00"),
        (1714521600, "2024-05-01T00:00:00"),
        ("1714521600000", "2024-05-01T00:00:00"),
    ],
)
def test_times_are_read_as_programs_write_them(value, expected):
    assert parse_time(value, "t").isoformat() == expected + "+00:00"


COMPACT = ["2024050113", 202405011300, "20240501130000"]  # with an hour: as seconds or milliseconds in 2034 or 1976
FAR = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "12345678901"]


@pytest.mark.parametrize("value", ["1/5/2024", "", None, True, "soon", "2024-13-01", *COMPACT, *FAR])
def test_other_times_are_refused(value):
    with pytest.raises(ValueError, match="expected a time such as"):
        parse_time(value, "t")
