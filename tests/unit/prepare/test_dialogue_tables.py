"""Tables of dialogues: headers, quotes, commas, joined files; each utterance is used or set aside."""

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.lines import DataError
from stages.prepare.dialogues import read_dialogues
from tests.unit.prepare.tables import (
    HEADER,
    ONE_SIZE,
    PREPARE,
    json_lines,
    reasons,
    table,
    values,
    write,
)


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
    def test_joined_tables_with_different_headers_are_refused(self, tmp_path, header):
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
            (3, "a quote that opens in one", 'a,A,"he said, yes,1'),
            (4, "a quote that opens in one", 'b,B,and left",0'),
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
