"""A manifest keeps rows in their split when a pool changes."""

import json
import random
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from stages import params
from stages.data.lines import DataError
from stages.errors import UserError
from stages.prepare.__main__ import main as prepare_main
from stages.prepare.manifest import compare_with, key_of, read_manifest, write_manifest
from stages.prepare.split import split_pool
from stages.split.__main__ import main as split_main
from stages.text.example import Example, read_examples
from tests.unit.prepare.tables import PREPARE, encode


def text(number: int) -> str:
    return f"第{number}句{chr(0x4E00 + 97 * (number % 200)) * 9}{number * 7919}"


def a_pool(first: int, cases: int) -> list[Example]:
    return [
        Example(text(3 * case + row), (case + row) % 2 == 0, f"case {case}", f"kind {case % 4}", f"a:{3 * case + row}")
        for case in range(first, first + cases)
        for row in range(3)
    ]


def where(splits):
    return {example.source: (name, example.fold) for name, rows in splits.items() for example in rows}


@pytest.fixture
def written(tmp_path):
    """A pool, its splits, and the manifest that was read back."""
    pool = a_pool(0, 120)
    splits = split_pool(pool, PREPARE)
    write_manifest(tmp_path / "manifest", splits, [])
    return pool, splits, read_manifest(tmp_path / "manifest")


CHANGES = {
    "a row added": lambda pool: [*pool, Example("今天下午三点集合", False, "new", "kind 1", "b:1")],
    "the first row removed": lambda pool: pool[1:],
    "shuffled": lambda pool: random.Random(3).sample(pool, len(pool)),
    "5 % fewer rows": lambda pool: random.Random(4).sample(pool, round(0.95 * len(pool))),
    "a third of the cases added": lambda pool: [*a_pool(200, 40), *pool],
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_known_row_changes_its_split_or_fold(written, change):
    pool, splits, manifest = written
    before, after = where(splits), where(split_pool(CHANGES[change](pool), PREPARE, manifest))
    changed = [source for source in after if source in before and after[source] != before[source]]
    assert changed == []


def test_without_a_manifest_they_do(written):
    pool, splits, _ = written
    before, after = where(splits), where(split_pool(CHANGES["shuffled"](pool), PREPARE))
    assert sum(after[source] != before[source] for source in after) > 0.1 * len(pool)


def test_new_cases_are_dealt_out_for_balance(written):
    pool, _, manifest = written
    grown = [*pool, *a_pool(200, 120)]
    splits = split_pool(grown, PREPARE, manifest)
    for name, share in (("train", 0.65), ("valid", 0.15), ("test", 0.2)):
        assert len(splits[name]) / len(grown) == pytest.approx(share, abs=0.01)
        assert sum(e.label for e in splits[name]) / len(splits[name]) == pytest.approx(0.5, abs=0.02)
    shuffled = split_pool(random.Random(1).sample(grown, len(grown)), PREPARE, manifest)
    assert where(shuffled) == where(splits)
    groups = defaultdict(set)
    for name, rows in splits.items():
        for example in rows:
            groups[example.group].add((name, example.fold))
    assert all(len(found) == 1 for found in groups.values())
    assert compare_with(manifest, splits) == {"known": 360, "new": 360, "gone": 0, "changed_split": 0}


def test_a_case_with_new_texts_stays_where_its_old_ones_were(written):
    _, splits, manifest = written
    case = splits["test"][0].group
    others = [e for rows in splits.values() for e in rows if e.group != case]
    again = split_pool([*others, Example("完全不同的新文字，没有出现过", True, case)], PREPARE, manifest)
    assert [e.group for e in again["test"]].count(case) == 1


def test_a_unit_that_joins_two_splits_goes_to_the_first_and_is_counted(written):
    pool, splits, manifest = written
    train, valid, test = (splits[name][0] for name in ("train", "valid", "test"))
    for one, other, expected in ((test, train, "train"), (test, valid, "valid")):
        joined = [replace(e, group=one.group if e.group == other.group else e.group) for e in pool]
        # The joined rows are known by their texts, though their group is another one now.
        again = split_pool(joined, PREPARE, manifest)
        assert {name for name, rows in again.items() if one.group in {e.group for e in rows}} == {expected}
        assert compare_with(manifest, again)["changed_split"] == 3


def test_layout_and_names_of_speakers_change_no_key():
    assert key_of(Example("王某: 您好 啊", True, "g")) == key_of(Example("您好啊", False, "g"))
    assert key_of(Example("您好啊", True, "g")) != key_of(Example("您好啊", True, "h"))


def test_rows_that_return_return_to_their_split(written, tmp_path):
    pool, splits, manifest = written
    fewer = split_pool(pool[60:], PREPARE, manifest)
    write_manifest(tmp_path / "again", fewer, manifest)
    again = read_manifest(tmp_path / "again")
    assert again == manifest
    assert compare_with(again, fewer)["gone"] == 60
    assert where(split_pool(pool, PREPARE, again)) == where(splits)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "found the header ['a', 'b']; expected text,group,split,fold"),
        ("text,group,split,fold\nx,,dev,0\n", "manifest:2: found .*; expected two hashes, one of train, valid, test"),
        ("text,group,split,fold\nx,,train,7\n", "a fold from -1 to 4"),
        (b"text,group,split,fold\n\xff,,train,0\n", "expected a manifest in UTF-8"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path, content, message):
    file = tmp_path / "manifest"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=re.escape(message) if "[" in message else message):
        read_manifest(file)
    with pytest.raises(DataError, match=r"missing: write it with `python -m stages.split --write`"):
        read_manifest(tmp_path / "none")


ROWS = [{"input": text(n), "label": n % 2, "group": n // 2} for n in range(240)]
POOL = {"datasets/sample": {"pool": "data/raw/a.jsonl"}}


def test_the_command_writes_a_manifest_that_prepare_follows(project, monkeypatch, capsys):
    project({"a.jsonl": encode(ROWS).decode()}, POOL)
    monkeypatch.setattr("sys.argv", ["split", "--write", "data/raw/a.manifest"])
    split_main()
    assert "now set prepare.manifest: data/raw/a.manifest in params.yaml" in capsys.readouterr().out
    prepare_main()
    before = {
        e.input: name
        for name in ("train", "valid", "test")
        for e in read_examples(Path(f"data/processed/{name}.jsonl"))
    }
    with pytest.raises(UserError, match="data/raw/a.manifest exists and is not prepare.manifest"):
        split_main()

    more = [{"input": text(n), "label": n % 2, "group": n // 2} for n in range(300, 360)] + ROWS[10:][::-1]
    project({"a.jsonl": encode(more).decode()}, POOL | {"prepare/manifest": "data/raw/a.manifest"})
    capsys.readouterr()
    prepare_main()
    assert "prepare: manifest: 230 rows known, 60 new, 10 gone" in capsys.readouterr().out
    report = json.loads(Path("metrics/data.json").read_text(encoding="utf-8"))
    assert report["manifest"] == {"known": 230, "new": 60, "gone": 10, "changed_split": 0}
    after = {
        e.input: name
        for name in ("train", "valid", "test")
        for e in read_examples(Path(f"data/processed/{name}.jsonl"))
    }
    assert {key: name for key, name in after.items() if key in before} == {
        k: v for k, v in before.items() if k in after
    }

    split_main()  # over the one in use: the new rows are added, and those that are gone stay
    assert len(read_manifest(Path("data/raw/a.manifest"))) == 300


@pytest.mark.parametrize(("key", "value"), [("fold", 2), ("manifest", "data/raw/m")])
def test_splits_of_ones_own_take_neither_manifest_nor_fold(project, key, value):
    entry = dict.fromkeys(("train", "valid", "test"), "data/raw/a.jsonl")
    project({"a.jsonl": encode(ROWS).decode()}, {"datasets/sample": entry, f"prepare/{key}": value})
    with pytest.raises(DataError, match=f"prepare.{key} is {value}, but datasets.sample has splits of its own"):
        prepare_main()


def test_params_name_a_manifest_that_dvc_would_not_see(changed):
    with pytest.raises(UserError, match="prepare: manifest: found 'data/m'; expected a file in data/raw"):
        params.load(changed({"prepare/manifest": "data/m"}))


def test_params_name_a_folder_that_dvc_would_not_look_into(changed, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/m").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw").symlink_to(tmp_path / "elsewhere")  # DVC looks into this one
    monkeypatch.chdir(tmp_path)
    params.load(changed({"prepare/manifest": "data/raw/m"}))
    (tmp_path / "elsewhere/mine").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        UserError, match="found 'data/raw/mine/m', where data/raw/mine is a link, behind which DVC sees"
    ):
        params.load(changed({"prepare/manifest": "data/raw/mine/m"}))


@pytest.mark.parametrize(
    ("file", "message"), [("elsewhere", "expected a file in data/raw or data/sample"), ("../m", "expected a file")]
)
def test_a_manifest_that_dvc_would_not_see_is_refused(project, monkeypatch, file, message):
    project({"a.jsonl": encode(ROWS).decode()}, POOL)
    monkeypatch.setattr("sys.argv", ["split", "--write", file])
    with pytest.raises(UserError, match=message):
        split_main()
