"""Dialogues as spreadsheets and pandas write them: each row is used, or found again where it was set aside; no two
cases are mixed."""

import json
from dataclasses import replace

import pytest

from stages.data.lines import DataError
from stages.data.values import parse_label
from stages.prepare.dialogues import read_dialogues
from stages.prepare.read import limit_rejected, read_labelled
from tests.unit.prepare.tables import JSON_ROW, ONE_SIZE, PREPARE, reasons, table, write


class TestBlankCases:
    def test_merged_cells_are_set_aside_and_never_labelled(self, tmp_path):
        """Otherwise three texts of three unknown dialogues become one dialogue, and so fraud."""
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
    def test_values_that_mean_no_case_in_an_export_are_set_aside(self, tmp_path, case):
        rows = read_dialogues(write(tmp_path / "x.csv", table(f"{case},A,x,true", f"{case},B,y,false")), PREPARE)
        assert not rows.examples
        assert [line for line, reason in reasons(rows) if reason.startswith("case is ")] == [2, 3]

    def test_a_word_for_a_missing_value_is_no_utterance_of_a_table(self, tmp_path):
        rows = read_dialogues(write(tmp_path / "x.csv", table("a,A,nan,0", "a,A,一,0")), ONE_SIZE)
        assert [example.input for example in rows.examples] == ["A: 一"]
        assert reasons(rows)[0][0] == 2
        assert "content is 'nan', which programs write for a missing value" in reasons(rows)[0][1]
        lines = read_dialogues(write(tmp_path / "x.jsonl", JSON_ROW % "nan"), ONE_SIZE)
        assert [example.input for example in lines.examples] == ["A: nan"]

    @pytest.mark.parametrize("case", ["null", '""', '" \\t"', "true", "[1]", "1.5", "1e17", '"nan"'])
    def test_a_missing_case_in_json_lines_is_set_aside(self, tmp_path, case):
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
        rows = read_labelled(write(tmp_path / "x.jsonl", "\n".join(lines)))
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
    def test_a_flag_counts_though_its_text_or_its_speaker_is_missing(self, tmp_path, lacking):
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


class TestChunks:
    def test_a_case_of_one_message_becomes_one_row(self, tmp_path):
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


class TestDialogues:
    lines = (
        ("a", "甲", "一二三四", False),
        ("a", "乙", "五六", True),
        ("a", "甲", "七八九十" * 5, False),
        ("b", "", "丙", False),
    )

    def write(self, folder, kind):
        rows = [dict(zip(("case", "speaker", "content", "is_fraud"), line, strict=True)) for line in self.lines]
        if kind == "csv":
            body = "case,speaker,content,is_fraud\n" + "".join(",".join(map(str, line)) + "\n" for line in self.lines)
        else:
            body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"calls.{kind}").write_text(body, encoding="utf-8")
        return folder

    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    def test_whole_lines_are_cut_to_size_and_keep_their_case(self, tmp_path, kind):
        rows = read_dialogues(self.write(tmp_path, kind), replace(PREPARE, chunk_characters=[14]))
        assert [(e.input, e.label, e.group, e.category) for e in rows.examples] == [
            ("甲: 一二三四\n乙: 五六", True, "calls/a", "calls"),
            ("甲: " + "七八九十" * 5, True, "calls/a", "calls"),  # after the first flagged line
            ("丙", False, "calls/b", "calls"),
        ]
        any_line = read_dialogues(tmp_path, replace(PREPARE, chunk_characters=[14], chunk_label="any_line"))
        assert [e.label for e in any_line.examples] == [True, False, False]
        sizes = read_dialogues(tmp_path, replace(PREPARE, chunk_characters=[7, 100]))
        assert len(sizes.examples) == len({e.source for e in sizes.examples}) == 5  # both sizes cut the last alike

    def test_a_bad_line_is_set_aside_with_file_and_line(self, tmp_path):
        file = tmp_path / "x.csv"
        file.write_text(
            'case,speaker,content,is_fraud\na,甲,"一,\n二",False\n\na,乙,,True\na,乙,三,maybe\n', encoding="utf-8"
        )
        rows = read_dialogues(file, PREPARE)
        assert rows.examples[0].input == "甲: 一, 二"
        assert [(row.line, row.reason[:8]) for row in rows.rejected] == [(5, "content "), (6, "is_fraud")]

    def test_a_missing_column_and_an_empty_folder_are_named(self, tmp_path):
        with pytest.raises(DataError, match="no .csv and no .jsonl"):
            read_dialogues(tmp_path, PREPARE)
        (tmp_path / "x.csv").write_text("case,content\na,b\n")
        with pytest.raises(DataError, match="expected case, speaker, content, is_fraud"):
            read_dialogues(tmp_path, PREPARE)
