"""Dialogues as spreadsheets and pandas write them: each row is used, or found again where it was set aside; each file
of a folder is read, or named as left out; no two cases are mixed."""

import csv
import gzip
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import params
from stages.data.jsonl import DataError
from stages.prepare.dialogues import read_dialogues
from stages.prepare.read import limit_rejected, parse_label, read_rows
from tests.conftest import ROOT

PREPARE = replace(params.load(ROOT / "params.yaml").prepare, seed=1)
ONE_SIZE = replace(PREPARE, chunk_characters=[10_000])
HEADER = "case,speaker,content,is_fraud\n"


def table(*rows: str, header: str = HEADER) -> str:
    return header + "".join(row + "\n" for row in rows)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reasons(rows) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in rows.rejected]


class TestBlankCases:
    def test_merged_cells_are_set_aside_and_never_labelled(self, tmp_path):
        """cf. row 6: three texts of three unknown dialogues became one dialogue, and so fraud."""
        merged = [",A,send the money now,true", ",B,lovely weather today,false", ",C,see you at lunch,false"]
        rows = read_dialogues(write(tmp_path / "x.csv", table("1,A,hello there,false", *merged)), PREPARE)
        assert [(e.input, e.label, e.group) for e in rows.examples] == [("A: hello there", False, "x/1")]
        assert [line for line, _ in reasons(rows)] == [3, 4, 5]
        assert all("case is blank" in reason and "fill down" in reason for _, reason in reasons(rows))
        assert [row.row for row in rows.rejected] == merged
        only = read_dialogues(write(tmp_path / "x.csv", table(*merged)), PREPARE)
        assert not only.examples
        with pytest.raises(DataError, match=r"none of the 3 rows of .*x.csv can be used(.|\n)*x.csv:2: case is blank"):
            limit_rejected(only, 1.0)

    @pytest.mark.parametrize(
        "case",
        [
            "",
            " ",
            "\u3000",
            "\u200b",
            "nan",
            "NaN",
            "None",
            "<NA>",
            "NULL",
            "#N/A",
            "#DIV/0!",
            "1.38E+10",
            '"1,38E+10"',
        ],
    )
    def test_what_stands_for_no_case_in_an_export_is_set_aside(self, tmp_path, case):
        rows = read_dialogues(write(tmp_path / "x.csv", table(f"{case},A,x,true", f"{case},B,y,false")), PREPARE)
        assert not rows.examples
        assert [line for line, reason in reasons(rows) if reason.startswith("case is ")] == [2, 3]

    @pytest.mark.parametrize("case", ["null", '""', '" \\t"', "true", "[1]", "1.5", "1e17", '"nan"'])
    def test_and_in_json_lines(self, tmp_path, case):
        row = f'{{"case": {case}, "speaker": "A", "content": "x", "is_fraud": true}}\n'
        rows = read_dialogues(write(tmp_path / "x.jsonl", row * 2), PREPARE)
        assert not rows.examples
        assert [line for line, reason in reasons(rows) if reason.startswith("case is ")] == [1, 2]

    def test_blanks_around_a_case_are_no_part_of_it(self, tmp_path):
        rows = read_dialogues(write(tmp_path / "x.csv", table("a,A,x,false", " a ,B,y,false")), ONE_SIZE)
        assert [(e.input, e.group) for e in rows.examples] == [("A: x\nB: y", "x/a")]

    def test_numbers_of_any_spelling_are_one_case(self, tmp_path):
        lines = [f'{{"case": {c}, "speaker": null, "content": "x", "is_fraud": 0}}' for c in ("3", '"3"', "3.0")]
        rows = read_dialogues(write(tmp_path / "x.jsonl", "\n".join(lines).replace("null", '""')), ONE_SIZE)
        assert [(e.input, e.group) for e in rows.examples] == [("x\nx\nx", "x/3")]


class TestLabels:
    @pytest.mark.parametrize("value", [True, 1, 1.0, "1", "1.0", "true", "True", "TRUE", " true "])
    def test_true_in_every_spelling(self, value):
        assert parse_label(value) is True

    @pytest.mark.parametrize("value", [False, 0, 0.0, "0", "0.0", "false", "False", "FALSE", " False\t"])
    def test_false_in_every_spelling(self, value):
        assert parse_label(value) is False

    @pytest.mark.parametrize("value", [None, "", 2, -1, 0.5, 1.5, "yes", "是", "nan", float("nan"), float("inf"), [1]])
    def test_anything_else_is_refused_under_the_columns_name(self, value):
        with pytest.raises(ValueError, match=r"^is_fraud is .*; expected true or false, 1 or 0$"):
            parse_label(value, "is_fraud")

    def test_a_table_with_ones_and_zeros(self, tmp_path):
        content = table("a,A,x,1", "a,B,y,0", "b,A,z,0.0", "c,A,w,TRUE", "d,A,v,1.0", "e,A,u,2")
        rows = read_dialogues(write(tmp_path / "x.csv", content), replace(ONE_SIZE, chunk_label="any_line"))
        assert [e.label for e in rows.examples] == [True, False, True, True]
        assert reasons(rows) == [(7, "is_fraud is '2'; expected true or false, 1 or 0")]

    def test_json_labels_and_groups_of_pandas(self, tmp_path):
        lines = [
            '{"input": "a", "label": "1", "group": 3.0}',
            '{"input": "b", "label": 1.0, "group": "3"}',
            '{"input": "c", "label": 0.0, "group": 3}',
            '{"input": "d", "label": "FALSE", "group": " "}',
            '{"input": "e", "label": 0, "group": null, "category": 7.0}',
        ]
        rows = read_rows(write(tmp_path / "x.jsonl", "\n".join(lines)))
        assert not rows.rejected
        assert [(e.label, e.group, e.category) for e in rows.examples] == [
            (True, "3", ""),
            (True, "3", ""),
            (False, "3", ""),
            (False, "", ""),
            (False, "", "7"),
        ]

    def test_a_flag_counts_though_the_text_of_its_line_is_blank(self, tmp_path):
        rows = read_dialogues(write(tmp_path / "x.csv", table("a,A,x,0", "a,B,,1", "a,A,y,0")), ONE_SIZE)
        assert [(e.input, e.label) for e in rows.examples] == [("A: x\nA: y", True)]
        assert reasons(rows) == [(3, "content is ''; expected a text that is not blank")]

    @pytest.mark.parametrize("lacking", ['"speaker": "B", "content": null', '"speaker": "B"', '"content": "pay"'])
    def test_and_though_its_text_or_its_speaker_is_missing(self, tmp_path, lacking):
        """pandas writes null where a cell is blank, and other programs leave the key out."""
        row = '{"case": "a", "speaker": "A", "content": "%s", "is_fraud": 0}\n'
        content = row % "x" + f'{{"case": "a", {lacking}, "is_fraud": 1}}\n' + row % "y"
        rows = read_dialogues(write(tmp_path / "x.jsonl", content), ONE_SIZE)
        assert [(e.input, e.label) for e in rows.examples] == [("A: x\nA: y", True)]
        assert [line for line, _ in reasons(rows)] == [2]

    def test_a_speaker_of_null_is_a_blank_one(self, tmp_path):
        row = '{"case": "a", "speaker": null, "content": "x", "is_fraud": 1}\n'
        rows = read_dialogues(write(tmp_path / "x.jsonl", row), ONE_SIZE)
        assert [(e.input, e.label) for e in rows.examples] == [("x", True)]


class TestTables:
    def test_pandas_index_and_excels_blank_columns_are_no_values(self, tmp_path):
        indexed = table("0,a,A,x,1", "1,a,B,y,0", header=f",{HEADER}")
        blank = table("a,A,x,1,,", "a,B,y,0,,", header="case,speaker,content,is_fraud,,\n")
        named = table("a,A,x,1,7", "a,B,y,0,7", header="case,speaker,content,is_fraud,Unnamed: 4\n")
        for content in (indexed, blank, named):
            rows = read_dialogues(write(tmp_path / "x.csv", content), ONE_SIZE)
            assert not rows.rejected
            assert [(e.input, e.label) for e in rows.examples] == [("A: x\nB: y", True)]

    def test_a_quote_that_never_closes_is_an_error_that_names_the_row_where_it_opens(self, tmp_path):
        content = table("a,A,x,0", 'a,A,"he said,1', "b,B,y,0", "b,B,z,0")
        with pytest.raises(DataError, match=r"x.csv:3: no CSV in the row that begins here: unexpected end of data"):
            read_dialogues(write(tmp_path / "x.csv", content), ONE_SIZE)

    def test_rows_without_any_value_are_blank_lines(self, tmp_path):
        rows = read_dialogues(write(tmp_path / "x.csv", table("a,A,x,1", *[",,,"] * 500, " ,,,")), ONE_SIZE)
        assert (len(rows.examples), rows.total) == (1, 1)

    @pytest.mark.parametrize("header", [HEADER, "case,speaker,content,is_fraud,\n"])
    def test_a_text_with_a_comma_that_is_not_quoted_is_set_aside(self, tmp_path, header):
        rows = read_dialogues(write(tmp_path / "x.csv", table("a,A,x, 1,0", "a,A,y,0", header=header)), ONE_SIZE)
        assert [e.input for e in rows.examples] == ["A: y"]
        assert reasons(rows) == [(2, "more columns than the header names: quote a text that holds a comma")]

    def test_a_comma_in_a_text_is_no_label_where_the_label_is_blank(self, tmp_path):
        rows = read_dialogues(write(tmp_path / "x.csv", table("a,A,I owe you, 1,", "a,A,y,0")), ONE_SIZE)
        assert [(e.input, e.label) for e in rows.examples] == [("A: y", False)]
        assert reasons(rows) == [(2, "more columns than the header names: quote a text that holds a comma")]

    @pytest.mark.parametrize(
        ("header", "found"),
        [
            ("case;speaker;content;is_fraud\n", "case;speaker;content;is_fraud"),
            ("case\tspeaker\tcontent\tis_fraud\n", "case.*speaker"),
            ("Case,Speaker,Content,Is_Fraud\n", "'Case', 'Speaker', 'Content', 'Is_Fraud'"),
            ("case , speaker,content,is_fraud\n", "'case ', ' speaker'"),
            ("case,case,speaker,content,is_fraud\n", "'case', 'case'"),
            ("编号,说话人,内容,是否诈骗\n", "'编号', '说话人'"),
        ],
    )
    def test_another_header_is_an_error_that_names_it(self, tmp_path, header, found):
        file = write(tmp_path / "x.csv", table("a,A,x,1", header=header))
        with pytest.raises(DataError, match=rf"x.csv begins with the columns .*{found}.*; expected case, speaker, "):
            read_dialogues(file, PREPARE)

    def test_joined_tables_are_refused_since_their_cases_would_be_mixed(self, tmp_path):
        one = table("1,A,x,1", "2,B,y,0").encode()
        for joined in (one + one, b"\xef\xbb\xbf" + one + b"\xef\xbb\xbf" + one):
            with pytest.raises(DataError, match=r"x.csv:4: the header comes again, so files were joined"):
                read_dialogues(write(tmp_path / "x.csv", joined), PREPARE)

    @pytest.mark.parametrize("header", ["Case,Speaker,Content,Is_fraud", "speaker,case,content,is_fraud,note"])
    def test_so_are_tables_with_headers_of_two_kinds(self, tmp_path, header):
        content = table("1,A,x,1") + f"{header}\n1,B,y,0,\n"
        with pytest.raises(DataError, match=r"x.csv:3: the header comes again, so files were joined"):
            read_dialogues(write(tmp_path / "x.csv", content), PREPARE)

    def test_a_case_that_resumes_after_another_one_is_reported(self, tmp_path):
        rows = read_dialogues(write(tmp_path / "x.csv", table("1,A,x,1", "2,B,y,0", "1,A,z,0", "1,A,w,0")), ONE_SIZE)
        assert len(rows.doubts) == 1
        assert "1 times a case resumes after rows of another one (the first: '1' at line 4)" in rows.doubts[0]

    def test_a_quote_that_closes_in_a_later_row_mixes_no_rows(self, tmp_path):
        content = table("a,A,x,0", 'a,A,"he said, yes,1', 'b,B,and left",0', "c,C,z,1", 'd,D,"one, 1\ntwo",0')
        rows = read_dialogues(write(tmp_path / "x.csv", content), ONE_SIZE)
        assert [e.input for e in rows.examples] == ["A: x", "C: z", "D: one, 1 two"]  # a text of two lines is a text
        assert [(row.line, row.reason[:25], row.row) for row in rows.rejected] == [
            (4, "a quote that opens in one", 'a,A,"he said, yes,1\nb,B,and left",0')
        ]

    def test_a_row_that_is_no_utf_8_is_set_aside_and_can_be_written(self, tmp_path):
        content = table("a,A,x,0").encode() + "b,甲,转账,1\n".encode("gbk")
        rows = read_dialogues(write(tmp_path / "x.csv", content), ONE_SIZE)
        assert [e.input for e in rows.examples] == ["A: x"]
        assert reasons(rows) == [(3, "no UTF-8 at byte 2")]
        assert json.dumps(vars(rows.rejected[0]), ensure_ascii=False).encode()

    def test_carriage_returns_alone_end_the_lines_of_a_table(self, tmp_path):
        content = table("a,A,x,0", "b,B,,1", "c,C,z,1").replace("\n", "\r")
        rows = read_dialogues(write(tmp_path / "x.csv", content), ONE_SIZE)
        assert [(e.input, e.source) for e in rows.examples] == [
            ("A: x", "x.csv:2-2/10000"),
            ("C: z", "x.csv:4-4/10000"),
        ]
        assert [line for line, _ in reasons(rows)] == [3]

    def test_a_key_named_problem_is_a_key(self, tmp_path):
        row = {"case": 1, "speaker": "A", "content": "x", "is_fraud": 1, "problem": "none"}
        rows = read_dialogues(write(tmp_path / "x.jsonl", json.dumps(row)), ONE_SIZE)
        assert [e.input for e in rows.examples] == ["A: x"]


class TestChunks:
    def test_a_message_a_case_gives_one_row_a_case(self, tmp_path):
        content = table(*(f"{n},A,message {n},{n % 2}" for n in range(300)))
        rows = read_dialogues(write(tmp_path / "x.csv", content), PREPARE)
        assert len(rows.examples) == len({e.input for e in rows.examples}) == 300
        assert all(e.source.endswith("/100") for e in rows.examples)
        assert rows.total == 300

    def test_the_smallest_size_that_cuts_a_chunk_names_it(self, tmp_path):
        file = write(tmp_path / "x.csv", table("a,,12345,0", "a,,67890,1", "b,,1,0"))
        for sizes in ([5, 100, 200], [200, 5, 100], [5, 5, 100]):
            rows = read_dialogues(file, replace(PREPARE, chunk_characters=sizes))
            assert [e.source.partition(":")[2] for e in rows.examples] == ["2-2/5", "3-3/5", "2-3/100", "4-4/5"]

    def test_the_share_of_bad_rows_is_of_rows_not_of_chunks(self, tmp_path):
        """Of 100 rows one is bad; the 99 others are one chunk."""
        content = table(*(f"a,A,x{n},0" for n in range(99)), "a,A,,0")
        rows = read_dialogues(write(tmp_path / "x.csv", content), replace(ONE_SIZE, chunk_characters=[100_000]))
        assert (len(rows.examples), rows.total) == (1, 100)
        limit_rejected(rows, 0.01)


JSON_ROW = '{"case": 1, "speaker": "A", "content": "%s", "is_fraud": 1}\n'


class TestFolders:
    def test_each_file_is_read_or_named(self, tmp_path):
        """cf. row 7."""
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
    def test_one_file_of_any_ending(self, tmp_path, name):
        content = table("1,A,x,1").encode()
        file = write(tmp_path / name, gzip.compress(content) if name.lower().endswith("gz") else content)
        rows = read_dialogues(file, PREPARE)
        assert [(e.input, e.source) for e in rows.examples] == [("A: x", f"{name}:2-2/100")]


values = st.sampled_from(
    ["a", "b", " b", "3", "3.0", "nan", "", " ", "x,y", 'he said "no"', "一\n二", "true", "1", "0.0"]
)
json_values = st.one_of(
    values, st.none(), st.booleans(), st.integers(-1, 3), st.sampled_from([0.0, 1.0, 2.5, 3.0, 1e17])
)


def json_lines(keys: tuple[str, ...]):
    row = st.fixed_dictionaries({}, optional=dict.fromkeys(keys, json_values)).map(json.dumps)
    return st.lists(st.one_of(row, st.sampled_from(["", "  ", "{", "[1]"])), min_size=1, max_size=30)


@given(json_lines(("input", "label", "group", "category")))
@settings(max_examples=300, deadline=None)
def test_each_row_of_json_lines_is_an_example_or_set_aside(tmp_path_factory, content):
    file = write(tmp_path_factory.getbasetemp() / "rows.jsonl", "\n".join([*content, '{"input": "a", "label": 1}']))
    rows = read_rows(file)
    places = [int(e.source.rpartition(":")[2]) for e in rows.examples] + [row.line for row in rows.rejected]
    expected = [number for number, line in enumerate(content, 1) if line.strip()] + [len(content) + 1]
    assert sorted(places) == expected
    assert rows.total == len(expected)


def check_dialogues(file: Path, lines: list[int]) -> None:
    """Each row stands in exactly one chunk of each size, or was set aside."""
    rows = read_dialogues(file, replace(PREPARE, chunk_characters=[10_000]))
    used: list[int] = []
    for example in rows.examples:
        count = example.input.count("\n") + 1
        first, last = map(int, example.source.rpartition(":")[2].partition("/")[0].split("-"))
        assert first in lines
        assert last in lines
        used.append(count)
    assert sum(used) + len(rows.rejected) == rows.total == len(lines)
    each = read_dialogues(file, replace(PREPARE, chunk_characters=[1]))
    places = [int(e.source.rpartition("-")[2].partition("/")[0]) for e in each.examples]
    assert sorted(places + [row.line for row in each.rejected]) == lines
    assert Counter(e.group for e in each.examples).keys() == {e.group for e in rows.examples}


@given(json_lines(("case", "speaker", "content", "is_fraud")))
@settings(max_examples=300, deadline=None)
def test_each_utterance_of_json_lines_is_in_a_chunk_or_set_aside(tmp_path_factory, content):
    content = [*content, '{"case": "z", "speaker": "A", "content": "x", "is_fraud": 0}']
    file = write(tmp_path_factory.getbasetemp() / "utterances.jsonl", "\n".join(content))
    check_dialogues(file, [number for number, line in enumerate(content, 1) if line.strip()])


@given(st.lists(st.lists(values, min_size=1, max_size=6), min_size=1, max_size=30))
@settings(max_examples=300, deadline=None)
def test_each_utterance_of_a_table_is_in_a_chunk_or_set_aside(tmp_path_factory, content):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "speaker", "content", "is_fraud"))
    ends = []
    for row in [*content, ["z", "A", "x", "0"]]:
        writer.writerow(row)
        ends.append(text.getvalue().count("\n"))
    filled = [end for end, row in zip(ends, [*content, ["z"]], strict=True) if "".join(row).strip()]
    file = write(tmp_path_factory.getbasetemp() / "utterances.csv", text.getvalue())
    check_dialogues(file, filled)


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
