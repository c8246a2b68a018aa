"""Each file of a folder of dialogues is read, or named as left out; no two share a case."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.lines import DataError
from stages.prepare.dialogues import read_dialogues
from stages.prepare.read import limit_rejected
from tests.unit.prepare.tables import (
    HEADER,
    JSON_ROW,
    ONE_SIZE,
    PREPARE,
    table,
    write,
)


class TestFolders:
    def test_each_file_is_read_or_named(self, tmp_path):
        write(tmp_path / "a.csv", table("1,A,in a,1"))
        write(tmp_path / "C.CSV", table("1,A,in C,1"))
        write(tmp_path / "sub/d.csv", table("1,A,in d,1"))
        write(tmp_path / "b.jsonl.gz", gzip.compress((JSON_ROW % "in b").encode()))
        write(tmp_path / "g.CSV.GZ", gzip.compress(table("1,A,in g,1").encode()))
        write(tmp_path / "e.json", JSON_ROW % "in e")
        write(tmp_path / "empty.csv", HEADER)
        (tmp_path / "linked").symlink_to(tmp_path / "sub")
        for hidden in (".DS_Store", ".gitignore", "a.csv.dvc", "sub/._d.csv", ".ipynb_checkpoints/a.csv"):
            write(tmp_path / hidden, "no data")
        rows = read_dialogues(tmp_path, PREPARE)
        assert [(e.input, e.group, e.category, e.source) for e in rows.examples] == [
            ("A: in C", "C/1", "C", "C.CSV:2-2/100"),
            ("A: in a", "a/1", "a", "a.csv:2-2/100"),
            ("A: in b", "b/1", "b", "b.jsonl.gz:1-1/100"),
            ("A: in g", "g/1", "g", "g.CSV.GZ:2-2/100"),
            ("A: in d", "sub/d/1", "sub/d", "sub/d.csv:2-2/100"),
        ]
        assert {Path(file).name: reason for file, reason in rows.left_out.items()} == {
            "e.json": "its name ends in neither .csv nor .jsonl (.gz or not)",
            "empty.csv": "holds no rows",
            "linked": "a link to a folder",
        }

    def test_files_of_one_stem_never_share_a_case(self, tmp_path):
        write(tmp_path / "a.csv", table("1,A,first,1"))
        write(tmp_path / "a.jsonl", JSON_ROW % "second")
        write(tmp_path / "a.CSV.gz", gzip.compress(table("1,A,third,0").encode()))
        write(tmp_path / "sub/a.csv", table("1,A,fourth,0"))
        rows = read_dialogues(tmp_path, PREPARE)
        assert {e.input: e.group for e in rows.examples} == {
            "A: first": "a.csv/1",
            "A: second": "a.jsonl/1",
            "A: third": "a.CSV.gz/1",
            "A: fourth": "sub/a/1",
        }
        assert len({e.category for e in rows.examples}) == 4

    def test_a_case_named_like_a_subfolder_is_not_taken_for_it(self, tmp_path):
        write(tmp_path / "a.csv", table("b/1,A,x,1"))
        write(tmp_path / "a/b.csv", table("1,A,y,0"))
        with pytest.raises(DataError, match=r"a/b.csv and a.csv both give the group 'a/b/1'"):
            read_dialogues(tmp_path, PREPARE)

    def test_a_folder_of_which_nothing_can_be_read_is_an_error_that_names_what_lies_there(self, tmp_path):
        write(tmp_path / "e.json", "[]")
        write(tmp_path / "empty.csv", HEADER)
        with pytest.raises(DataError, match=r"holds no .csv and no .jsonl file(.|\n)*e.json(.|\n)*empty.csv: holds no"):
            read_dialogues(tmp_path, PREPARE)

    def test_a_file_without_a_good_row_among_good_ones_is_an_error(self, tmp_path):
        write(tmp_path / "a.csv", table(*(f"1,A,x{n},0" for n in range(500))))
        write(tmp_path / "b.csv", table("1,A,x,maybe"))
        with pytest.raises(DataError, match=r"none of the 1 rows of .*b.csv can be used(.|\n)*is_fraud is 'maybe'"):
            limit_rejected(read_dialogues(tmp_path, PREPARE), 0.01)

    def test_a_broken_link_and_a_name_that_is_no_utf_8_are_errors(self, tmp_path):
        write(tmp_path / "a.csv", table("1,A,x,0"))
        (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere.csv")
        with pytest.raises(DataError, match=r"gone.csv is no file that can be read"):
            read_dialogues(tmp_path, PREPARE)
        (tmp_path / "gone.csv").unlink()
        name = "转账.csv".encode("gbk")
        (Path(tmp_path) / name.decode("utf-8", errors="surrogateescape")).write_text(table("1,A,y,0"))
        with pytest.raises(DataError, match=r"is no UTF-8, as an archive packed in GBK gives it: rename it"):
            read_dialogues(tmp_path, PREPARE)

    @pytest.mark.parametrize("name", ["x.CSV", "x.csv.gz", "x.Csv.GZ"])
    def test_a_single_file_may_have_any_ending(self, tmp_path, name):
        content = table("1,A,x,1").encode()
        file = write(tmp_path / name, gzip.compress(content) if name.lower().endswith("gz") else content)
        rows = read_dialogues(file, PREPARE)
        assert [(e.input, e.source) for e in rows.examples] == [("A: x", f"{name}:2-2/100")]


TABLE = table("1,A,x,1", "2,B,y,0")
places = st.sets(
    st.tuples(
        st.sampled_from(["", "sub/", "sub/sub/", "a/", "a.csv/", ".hidden/"]),
        st.sampled_from(["a", "A", "b", "a.b", ".a", "a.csv"]),
        st.sampled_from([".csv", ".CSV", ".jsonl", ".csv.gz", ".Jsonl.GZ", ".json", ".txt", ".csv.dvc", ".tsv", ""]),
    ),
    min_size=1,
    max_size=12,
)


@given(places)
@settings(max_examples=200, deadline=None)
def test_each_file_of_a_folder_is_read_or_named_and_shares_no_group(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("calls")
    written = {}
    for where, stem, ending in sorted(parts):
        file = folder / f"{where}{stem}{ending}"
        if not (file.exists() or any(parent.is_file() for parent in file.parents)):
            name = file.name.lower()
            content = (TABLE if name.removesuffix(".gz").endswith(".csv") else JSON_ROW % "x").encode()
            written[file] = write(file, gzip.compress(content) if name.endswith("gz") else content)
    visible = {f for f in written if "/." not in f"/{f.relative_to(folder).as_posix()}" and f.suffix != ".dvc"}
    try:
        rows = read_dialogues(folder, ONE_SIZE)
    except DataError as error:
        if "both give the group" not in str(error):
            assert not [f for f in visible if f.name.lower().endswith((".csv", ".jsonl", ".gz"))]
        return
    assert rows.used.keys() | rows.left_out.keys() == set(map(str, visible))
    assert not rows.used.keys() & rows.left_out.keys()
    owners = {(e.group, e.source.rpartition(":")[0]) for e in rows.examples}
    assert len(owners) == len({group for group, _ in owners}) == rows.used.total()
    assert len({e.category for e in rows.examples}) == len(rows.used)
