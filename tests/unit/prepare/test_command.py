"""The stage as a whole: which rows of which file end in which set."""

import json
import re
from pathlib import Path

import pytest

from stages import params
from stages.data.lines import DataError
from stages.prepare.__main__ import main as prepare_main
from stages.prepare.check import check
from stages.prepare.sources import read_sources, source_names
from stages.text.example import read_examples
from tests.unit.prepare.tables import (
    encode,
)

ROW = '{"input": "%s", "label": true}\n'


def test_files_of_one_name_have_sources_of_their_own(project):
    files = {"x/a.jsonl": ROW % "1", "y/a.jsonl": ROW % "2", "a.jsonl": ROW % "3", "b.jsonl": ROW % "4"}
    project(
        files,
        {
            "datasets/sample": {"pool": [f"data/raw/{name}" for name in files]},
            "evaluate/further_sets": {"more": "data/raw/y/a.jsonl"},
        },
    )
    own, further = read_sources(params.load())
    assert {e.input: e.source for e in own["pool"].examples} == {
        "1": "x/a.jsonl:1",
        "2": "y/a.jsonl:1",
        "3": "a.jsonl:1",
        "4": "b.jsonl:1",
    }
    assert [e.source for e in further["more"].examples] == ["y/a.jsonl:1"]
    both = source_names(["data/raw/a.jsonl", "data/sample/a.jsonl"])
    assert list(both.values()) == ["data/raw/a.jsonl", "data/sample/a.jsonl"]
    assert source_names(["data/sample/pool.jsonl"]) == {"data/sample/pool.jsonl": "pool.jsonl"}


def test_a_pool_that_lists_a_file_twice_is_refused(project, tmp_path):
    files = {"a.jsonl": ROW % "1"}
    project(files, {"datasets/sample": {"pool": ["data/raw/a.jsonl", "data/raw/a.jsonl"]}})
    with pytest.raises(DataError, match="data/raw/a.jsonl and data/raw/a.jsonl, which are one file"):
        read_sources(params.load())
    (tmp_path / "data/raw/b.jsonl").symlink_to(tmp_path / "data/raw/a.jsonl")
    project(files, {"datasets/sample": {"pool": ["data/raw/a.jsonl", "data/raw/b.jsonl"]}})
    with pytest.raises(DataError, match="data/raw/b.jsonl and data/raw/a.jsonl, which are one file"):
        read_sources(params.load())


def test_the_stage_names_what_it_left_out_and_set_aside(project, capsys):
    rows = [f"{n},A,第{n}句说的是{chr(0x4E00 + 97 * n) * 9},{n % 2}" for n in range(60)]
    table = "\n".join(["case,speaker,content,is_fraud", *rows, ""])
    further = "".join(ROW % f"第{n}条，{chr(0x6000 + 97 * n) * 9}" for n in range(4))
    project(
        {"calls/a.csv": table, "calls/b.csv": table + ",A,no case,1\n", "calls/e.json": "[]", "f.jsonl": further},
        {
            "datasets/sample": {"dialogues": "data/raw/calls"},
            "evaluate/further_sets": {"more": "data/raw/f.jsonl", "same": "data/raw/g.jsonl"},
        },
    )
    same = [{"input": row.split(",")[2], "label": int(row[-1])} for row in rows]
    Path("data/raw/g.jsonl").write_bytes(encode(same))
    prepare_main()
    printed = capsys.readouterr().out
    assert "prepare: 1 rows rejected, listed in data/processed/rejected.jsonl" in printed
    assert "WARNING: 1 of 61 rows of data/raw/calls/b.csv were rejected" in printed
    assert "WARNING: data/raw/calls/e.json was left out: its name ends in neither .csv nor .jsonl" in printed
    assert re.search(r"WARNING: (3[3-9]|4\d) rows of same leak \(verbatim \d+, .*verbatim_in_valid \d+", printed)
    report = json.loads(Path("metrics/data.json").read_text(encoding="utf-8"))
    assert list(report["left_out"]) == ["data/raw/calls/e.json"]
    assert report["rejected"] == 1
    (rejected,) = map(json.loads, Path("data/processed/rejected.jsonl").read_text(encoding="utf-8").splitlines())
    assert (rejected["file"], rejected["line"], rejected["row"]) == ("data/raw/calls/b.csv", 62, ",A,no case,1")
    assert sum(report[name]["rows"] for name in ("train", "valid", "test")) == 120


def test_good_rows_of_further_sets_do_not_hide_bad_ones_of_the_data_set(project, capsys):
    """2 of 58 rows are 3 %; with the 336 rows of a further set they would be 0.5 %."""
    good = [{"input": f"第{n}句{chr(0x4E00 + 97 * n) * 9}", "label": n % 2 == 0} for n in range(56)]
    rows = [*good, {"input": "无", "label": "maybe"}, {"input": "", "label": 1}]
    further = [{"input": f"又{n}句{chr(0x6000 + 31 * n) * 9}", "label": False} for n in range(336)]
    values = {
        "datasets/sample": {"pool": "data/raw/a.jsonl"},
        "evaluate/further_sets": {"harmless": "data/raw/f.jsonl"},
        "prepare/max_rejected_fraction": 0.01,
    }
    project({"a.jsonl": encode(rows).decode(), "f.jsonl": encode(further).decode()}, values)
    with pytest.raises(DataError, match=r"^2 of 58 rows can't be used, more than prepare.max_rejected_fraction = 0.01"):
        prepare_main()
    check(Path("data/raw/a.jsonl"), 0.01)
    assert "more bad rows than prepare.max_rejected_fraction = 0.01 allows" in capsys.readouterr().out
    project({"a.jsonl": encode(good).decode(), "f.jsonl": encode(further + rows[-2:] * 2).decode()}, values)
    with pytest.raises(DataError, match=r"^4 of 340 rows can't be used(.|\n)*data/raw/f.jsonl:337: label is 'maybe'"):
        prepare_main()


def test_every_row_of_the_inputs_is_in_a_set_or_dropped_or_rejected(project):
    rows = [{"input": f"第{n}句{chr(0x4E00 + 97 * n) * 9}", "label": n % 3 == 0, "group": n // 4} for n in range(120)]
    rows += [{"input": rows[0]["input"], "label": False}, {"input": "无", "label": "maybe"}]
    values = {"conflicting_labels": "drop", "balance": ["train", "test"], "max_rows_per_unit": 2, "train_rows": 50}
    values |= {"max_rejected_fraction": 0.1}
    changes = {f"prepare/{key}": value for key, value in values.items()}
    project({"a.jsonl": encode(rows).decode()}, changes | {"datasets/sample": {"pool": "data/raw/a.jsonl"}})
    prepare_main()
    report = json.loads(Path("metrics/data.json").read_text(encoding="utf-8"))
    assert report["dropped"].keys() == {
        "conflicting",
        "duplicates_of_held_out",
        "balance",
        "train_rows",
        "max_rows_per_unit",
    }
    assert min(report["dropped"]["conflicting"], report["dropped"]["balance"], report["rejected"]) > 0
    kept = sum(report[name]["rows"] for name in ("train", "valid", "test"))
    assert kept + sum(report["dropped"].values()) + report["rejected"] == len(rows)


def test_train_without_a_class_after_max_rows_per_unit_is_refused(project):
    """Each of three cases has one fraud in 41 rows; the single rows drawn from them hold no fraud."""
    files = {
        f"{name}.jsonl": encode(
            [
                {"input": f"{name}{chr(0x4E00 + 131 * n + at) * 9}", "label": n % 41 == 0, "group": f"{name} {n // 41}"}
                for n in range(123)
            ]
        ).decode()
        for at, name in enumerate(("train", "valid", "test"))
    }
    entry = {name: f"data/raw/{name}.jsonl" for name in ("train", "valid", "test")}
    project(files, {"datasets/sample": entry})
    prepare_main()  # no feature, such as a mark or a length, tells these texts apart
    assert "first" not in json.loads(Path("metrics/data.json").read_text(encoding="utf-8"))["shortcuts"]
    project(files, {"datasets/sample": entry, "prepare/max_rows_per_unit": 1})
    with pytest.raises(DataError, match="train has 0 fraud and 3 other rows; expected some of both"):
        prepare_main()
    assert len(read_examples(Path("data/processed/train.jsonl"))) == 123


def test_texts_that_differ_only_in_speakers_are_one_unit_where_speakers_are_removed(
    tmp_path, monkeypatch, base_folder, changed
):
    """Units, leaks and shortcuts are of the texts as the model reads them; the shortcut as read is told beside."""
    said = [
        f"{'先转账再退款' if n % 2 else '明天一起吃饭'}，第{n}回说的是{chr(0x4E00 + 97 * n) * 9}" for n in range(60)
    ]
    rows = [
        {"input": f"{'骗子' if n % 2 else '朋友'}{copy}: {text}", "label": bool(n % 2)}
        for n, text in enumerate(said)
        for copy in ("甲", "乙")
    ]
    further = [{"input": f"某人: {said[0]}", "label": True}, {"input": "全新的文字，从未见过", "label": False}]
    (tmp_path / "data/raw").mkdir(parents=True)
    for name, content in (("pool", rows), ("verbatim", further)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (tmp_path / f"data/raw/{name}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(base_folder)
    changed(  # writes params.yaml into tmp_path
        {
            "datasets/sample": {"pool": "data/raw/pool.jsonl"},
            "prepare/speakers": "remove",
            "evaluate/further_sets": {"verbatim": "data/raw/verbatim.jsonl"},
        }
    )
    monkeypatch.chdir(tmp_path)
    prepare_main()
    report = json.loads(Path("metrics/data.json").read_text(encoding="utf-8"))
    assert sum(report[name]["units"] for name in ("train", "valid", "test")) == 60  # of 120 rows
    assert (report["leakage"]["verbatim"], report["leakage"]["near"]) == (0, 0)
    counts = report["leakage"]["further"]["verbatim"]
    assert counts["verbatim"] + counts["verbatim_in_valid"] + counts["clean"] == 2
    assert report["further"]["verbatim"]["rows"] == 2
    assert "骗子" not in Path("data/processed/train.jsonl").read_text(encoding="utf-8")
    assert report["shortcuts_as_read"]["first"]["f1"] == 1.0
