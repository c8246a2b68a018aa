import gzip
import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from stages import params
from stages.data.jsonl import DataError
from stages.metrics import BEST_F1, choose_threshold, decision_metrics
from stages.prepare.__main__ import main as prepare_main
from stages.prepare.__main__ import read_all, source_names
from stages.prepare.baseline import fit_baseline, log_odds
from stages.prepare.describe import count_leaks, describe, describe_leaks, nested
from stages.prepare.leaks import find_leaks
from stages.prepare.read import limit_rejected, read_rows
from stages.prepare.shortcuts import find_shortcuts
from stages.prepare.split import drop_train_duplicates, require_both_classes, split_pool
from stages.text.example import Example, read_examples
from tests.conftest import ROOT

PREPARE = replace(params.load(ROOT / "params.yaml").prepare, seed=1)
ROWS = [
    {"input": "您好，转账吗？", "label": True, "group": "a", "category": "x"},
    {"instruction": "请判断", "input": "行 \u2028 分隔", "label": "False", "fraud_speaker": ""},
    {"input": "第三", "label": 1, "group": 7},
]


@pytest.fixture
def raw(tmp_path):
    def write(content: bytes) -> Path:
        file = tmp_path / "raw.jsonl"
        file.write_bytes(content)
        return file

    return write


def encode(rows, end="\n", ascii_only=False):
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in rows).encode()


@pytest.mark.parametrize(
    "content",
    [
        encode(ROWS),
        encode(ROWS, "\r\n"),
        encode(ROWS, "\n\n  \n"),
        b"\xef\xbb\xbf" + encode(ROWS),
        encode(ROWS).rstrip(b"\n"),
        encode(ROWS, ascii_only=True),
        gzip.compress(encode(ROWS)),
    ],
    ids=["plain", "crlf", "blank lines", "byte order mark", "no last newline", "escapes", "gzip"],
)
def test_one_content_in_every_wrapping(raw, content):
    examples = read_rows(raw(content)).examples
    assert [(e.input, e.label, e.group, e.category) for e in examples] == [
        ("您好，转账吗？", True, "a", "x"),
        ("行 \u2028 分隔", False, "", ""),
        ("第三", True, "7", ""),
    ]


BAD_ROWS = {
    b"{": "no JSON",
    b"[1]": "found list; expected an object",
    b'{"label": true}': "the key input is missing",
    b'{"input": "a"}': "the key label is missing",
    b'{"input": " \\n", "label": true}': "expected a text that is not blank",
    '{"input": "\u200b\ufeff", "label": true}'.encode(): "expected a text that is not blank",
    b'{"input": 5, "label": true}': "input is 5; expected a text",
    b'{"input": "a", "label": "maybe"}': "label is 'maybe'; expected true or false",
    b'{"input": "a", "label": 2}': "label is 2",
    b'{"input": "a", "label": 1.5}': "label is 1.5; expected true or false, 1 or 0",
    b'{"input": "a", "label": NaN}': "a number that JSON does not have: 'NaN'",
    b'{"input": "a", "label": "nan"}': "label is 'nan'",
    b'{"Input": "a", "label": true}': "the key input is missing; found ['Input', 'label']",
    b'{"input": "a", "label": true, "group": 3.5}': "group is 3.5; expected a text or a whole number",
    b'{"input": "a", "label": true, "group": 1e17}': "group is 1e+17, too large to be exact",
    b'{"input": "a", "label": true, "group": "nan"}': "group is 'nan', which programs write for a missing value",
    b'{"input": "a", "label": true, "group": "1.38E+10"}': "group is '1.38E+10', a number that a spreadsheet shortened",
    b'{"input": "a", "label": true}\r{"input": "b", "label": true}': "lines end in a bare carriage return",
    b'{"input": "a", "label": null}': "label is None",
    b'{"input": "a", "label": true, "label": false}': "a key stands twice",
    b'{"input": "a", "label": true, "group": ["x"]}': "group is ['x']; expected a text",
    b'{"input": "\\ud800", "label": true}': "a lone surrogate",
    b'{"input": "\xff", "label": true}': "no UTF-8 at byte",
    b"[" * 100_000: "nested too deeply",
}


@pytest.mark.parametrize(("line", "reason"), BAD_ROWS.items(), ids=range(len(BAD_ROWS)))
def test_a_bad_row_is_set_aside_with_its_reason_and_its_neighbours_stay(raw, line, reason):
    rows = read_rows(raw(encode(ROWS[:1]) + line + b"\n" + encode(ROWS[1:])))
    assert [example.source for example in rows.examples] == ["raw.jsonl:1", "raw.jsonl:3", "raw.jsonl:4"]
    (rejected,) = rows.rejected
    assert rejected.line == 2
    assert reason in rejected.reason
    assert rejected.row == line.decode(errors="backslashreplace")


def test_too_many_bad_rows_are_an_error_that_shows_ten(raw):
    rows = read_rows(raw(encode(ROWS) + b"{\n" * 12))
    with pytest.raises(DataError) as error:
        limit_rejected(rows, 0.5)
    assert str(error.value).startswith("12 of 15 rows can't be used, more than prepare.max_rejected_fraction = 0.5")
    assert str(error.value).count("raw.jsonl:") == 10
    limit_rejected(rows, 0.8)


def test_groups_that_some_rows_lack_are_reported(raw):
    some = read_rows(raw(encode([{"input": f"t{n}", "label": 1, "group": "" if n else "a"} for n in range(5)])))
    assert len(some.doubts) == 1
    assert some.doubts[0].startswith("4 of 5 rows of ")
    assert "rows of one case may part between splits" in some.doubts[0]
    for group in ("", "a"):
        assert not read_rows(raw(encode([{"input": f"t{n}", "label": 1, "group": group} for n in range(5)]))).doubts


PACKED = gzip.compress(encode(ROWS))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n", "has no rows"),
        (PACKED[:-9], "a damaged gzip file"),
        (PACKED[:12] + b"\xff\xff\xff" + PACKED[15:], "a damaged gzip file"),
    ],
)
def test_files_that_hold_nothing(raw, content, message):
    with pytest.raises(DataError, match=message):
        read_rows(raw(content))


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"nowhere.jsonl is no file"):
        read_rows(Path("nowhere.jsonl"))
    with pytest.raises(DataError, match=r"tests is no file"):
        read_rows(ROOT / "tests")


@pytest.fixture
def project(tmp_path, monkeypatch, base_folder, changed):
    """Writes files below data/raw and params.yaml, and works in their folder."""

    def build(files: dict[str, str], values: dict) -> None:
        for name, content in files.items():
            (tmp_path / "data/raw" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data/raw" / name).write_text(content, encoding="utf-8")
        (tmp_path / "models").mkdir(exist_ok=True)
        if not (tmp_path / "models/base").exists():
            (tmp_path / "models/base").symlink_to(base_folder)
        changed(values)  # writes params.yaml into tmp_path
        monkeypatch.chdir(tmp_path)

    return build


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
    read = read_all(params.load())
    assert {e.input: e.source for e in read["pool"].examples} == {
        "1": "x/a.jsonl:1",
        "2": "y/a.jsonl:1",
        "3": "a.jsonl:1",
        "4": "b.jsonl:1",
    }
    assert [e.source for e in read["further more"].examples] == ["y/a.jsonl:1"]
    both = source_names(["data/raw/a.jsonl", "data/sample/a.jsonl"])
    assert list(both.values()) == ["data/raw/a.jsonl", "data/sample/a.jsonl"]
    assert source_names(["data/sample/pool.jsonl"]) == {"data/sample/pool.jsonl": "pool.jsonl"}


def test_a_pool_that_lists_a_file_twice_is_refused(project, tmp_path):
    files = {"a.jsonl": ROW % "1"}
    project(files, {"datasets/sample": {"pool": ["data/raw/a.jsonl", "data/raw/a.jsonl"]}})
    with pytest.raises(DataError, match="data/raw/a.jsonl and data/raw/a.jsonl, which are one file"):
        read_all(params.load())
    (tmp_path / "data/raw/b.jsonl").symlink_to(tmp_path / "data/raw/a.jsonl")
    project(files, {"datasets/sample": {"pool": ["data/raw/a.jsonl", "data/raw/b.jsonl"]}})
    with pytest.raises(DataError, match="data/raw/b.jsonl and data/raw/a.jsonl, which are one file"):
        read_all(params.load())


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


def test_every_row_of_the_inputs_is_in_a_set_or_dropped_or_rejected(project):
    rows = [{"input": f"第{n}句{chr(0x4E00 + 97 * n) * 9}", "label": n % 3 == 0, "group": n // 4} for n in range(120)]
    rows += [{"input": rows[0]["input"], "label": False}, {"input": "无", "label": "maybe"}]
    values = {"conflicting_labels": "drop", "balance": ["train", "test"], "max_rows_per_unit": 2}
    values |= {"max_rejected_fraction": 0.1}
    project({"a.jsonl": encode(rows).decode()}, {f"prepare/{key}": value for key, value in values.items()})
    Path("params.yaml").write_text(
        Path("params.yaml").read_text(encoding="utf-8").replace("data/sample/pool.jsonl", "data/raw/a.jsonl"),
        encoding="utf-8",
    )
    prepare_main()
    report = json.loads(Path("metrics/data.json").read_text(encoding="utf-8"))
    assert report["dropped"].keys() == {"conflicting", "duplicates_of_held_out", "balance", "max_rows_per_unit"}
    assert min(report["dropped"]["conflicting"], report["dropped"]["balance"], report["rejected"]) > 0
    kept = sum(report[name]["rows"] for name in ("train", "valid", "test"))
    assert kept + sum(report["dropped"].values()) + report["rejected"] == len(rows)


def test_train_without_a_class_after_max_rows_per_unit_is_refused(project):
    """Of three cases with one fraud in 41 rows each, the rows that are drawn hold no fraud."""
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


pools = st.lists(
    st.builds(
        Example,
        input=st.sampled_from([f"text {n}" for n in range(300)]),
        label=st.booleans(),
        group=st.sampled_from(["", "", *(f"case {n}" for n in range(150))]),
    ),
    min_size=60,
    max_size=120,
)


@given(pools, st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_no_group_and_no_text_stands_in_two_splits(pool, seed):
    params = replace(PREPARE, valid_fraction=0.2, test_fraction=0.2, seed=seed)
    try:
        splits = split_pool(pool, params)
    except DataError:  # random links can join a pool into too few units, which is said
        reject()
    assert Counter(e for rows in splits.values() for e in rows) == Counter(pool)
    for key in ("input", "group"):
        found = defaultdict(set)
        for name, rows in splits.items():
            for example in rows:
                found[getattr(example, key)].add(name)
        found.pop("" if key == "group" else None, None)
        assert all(len(names) == 1 for names in found.values())


def test_splits_have_the_asked_shares_and_the_pools_class_balance():
    rng = np.random.default_rng(0)
    pool = [Example(f"t{n}", bool(rng.random() < 0.3), f"g{n // 3}") for n in range(3000)]
    splits = split_pool(pool, PREPARE)
    shares = {name: len(rows) / len(pool) for name, rows in splits.items()}
    assert shares == pytest.approx({"train": 0.65, "valid": 0.15, "test": 0.2}, abs=0.02)
    for rows in splits.values():
        assert sum(e.label for e in rows) / len(rows) == pytest.approx(0.3, abs=0.03)
    assert splits == split_pool(pool, PREPARE)


def test_a_pool_too_small_to_split_says_so():
    with pytest.raises(DataError, match="the pool has 1 units"):
        split_pool([Example("a", True, "g"), Example("b", False, "g")], PREPARE)


def test_a_small_pool_without_groups_is_split():
    splits = split_pool([Example(f"t{n}", n % 2 == 0) for n in range(20)], PREPARE)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 12, "valid": 4, "test": 4}
    require_both_classes(splits)


def test_a_split_of_one_class_is_refused():
    with pytest.raises(DataError, match="test has 0 fraud and 1 other rows"):
        require_both_classes({"test": [Example("a", False)]})


def test_texts_in_two_splits_are_counted_and_can_be_dropped_from_train(base_folder):
    given = {
        "train": [Example("a", True), Example("b", False), Example("c", True), Example("c", False)],
        "valid": [Example("a", True), Example("a", True), Example("x", False)],
        "test": [Example("b", True), Example("x", False)],
    }
    given = {name: [replace(row, source=f"{name}:{n}") for n, row in enumerate(rows)] for name, rows in given.items()}
    summary = describe(given, base_folder / "tokenizer.json", max_length=2)
    assert (summary["train"]["duplicates"], summary["train"]["conflicting_labels"]) == (1, 1)
    leakage = describe_leaks(*find_leaks(given, PREPARE))
    assert count_leaks(leakage)["verbatim"] == 3
    assert leakage["valid"] == {"verbatim": 2, "near": 0, "contained": 0, "case": 0, "clean": 1}
    assert leakage["test"]["verbatim_in_valid"] == 1
    clean, dropped = drop_train_duplicates(given, PREPARE)
    assert (dropped, [e.input for e in clean["train"]]) == (2, ["c", "c"])
    assert clean["test"] == given["test"]


def test_texts_that_will_be_cut_are_counted(base_folder):
    given = {"train": [Example("好" * 200, True), Example("好", False)]}
    for max_length, over in ((100, 1), (100_000, 0)):
        summary = describe(given, base_folder / "tokenizer.json", max_length)
        assert summary["train"]["tokens"]["over_max_length"] == over


def test_a_further_set_may_have_any_name():
    assert nested({"train": 1, "leakage": 2, "further": 3}) == {"train": 1, "further": {"leakage": 2, "further": 3}}


class TestSample:
    """The data set that the project ships holds what its README says."""

    pool = read_rows(ROOT / "data/sample/pool.jsonl")

    def test_every_row_is_good_and_no_two_are_alike(self):
        assert not self.pool.rejected
        assert len({re.sub(r"\W", "", e.input) for e in self.pool.examples}) == len(self.pool.examples) >= 600

    def test_its_make_up(self):
        examples = self.pool.examples
        fraud = [e for e in examples if e.label]
        assert 0.45 < len(fraud) / len(examples) < 0.55
        assert len({e.group for e in examples}) >= 300
        assert len({e.category for e in fraud}) >= 12
        assert all(40 <= len(e.input) <= 200 for e in examples)
        assert not re.search(r"https?:|www\.|1[3-9]\d{9}|\d{16,19}", "\n".join(e.input for e in examples))

    def test_key_words_alone_do_not_decide(self):
        chosen = params.load(ROOT / "params.yaml")
        splits = split_pool(self.pool.examples, chosen.prepare)
        splits, _ = find_leaks(splits, chosen.prepare)
        baseline, _ = fit_baseline(splits["train"], 0)
        on_valid, on_test = (log_odds(baseline, splits[name]) for name in ("valid", "test"))
        threshold = choose_threshold([e.label for e in splits["valid"]], on_valid, BEST_F1)
        assert 0.60 < decision_metrics([e.label for e in splits["test"]], on_test >= threshold)["f1"] < 0.85


REAL = ROOT.parent / "shared/data/anti_fraud_sft"


@pytest.mark.skipif(not REAL.is_dir(), reason="third-party data sets are not part of the project")
def test_the_real_splits_their_leaks_and_their_shortcut():
    read = {
        name: read_rows(REAL / f"{file}.jsonl")
        for name, file in (("train", "pool"), ("valid", "eval0819"), ("test", "test0819"))
    }
    assert {name: rows.total for name, rows in read.items()} == {"train": 29119, "valid": 2348, "test": 2349}
    assert all("not blank" in row.reason for rows in read.values() for row in rows.rejected)
    splits = {name: rows.examples for name, rows in read.items()}
    leakage = describe_leaks(*find_leaks(splits, PREPARE))
    assert leakage["valid"]["verbatim"] >= 1948
    assert leakage["valid"]["contained"] >= 1731
    (first, *_) = find_shortcuts(splits["train"], splits["valid"])
    assert "发言人" in first.feature
    assert first.f1 == pytest.approx(0.914, abs=0.01)
