"""Rows of texts: every wrapping, and the reason for each row that is set aside."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings

from stages.data.lines import DataError
from stages.prepare.read import limit_rejected, read_labelled
from tests.conftest import ROOT
from tests.unit.prepare.tables import encode, json_lines, reasons, table, write

ROWS = [
    {"input": "您好，转账吗？", "label": True, "group": "a", "category": "x"},
    {"instruction": "请判断", "input": "行 \u2028 分隔", "label": "False", "fraud_speaker": ""},
    {"input": "第三", "label": 1, "group": 7},
]


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
def test_every_wrapping_of_a_file_has_the_same_rows(raw, content):
    examples = read_labelled(raw(content)).examples
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
    rows = read_labelled(raw(encode(ROWS[:1]) + line + b"\n" + encode(ROWS[1:])))
    assert [example.source for example in rows.examples] == ["raw.jsonl:1", "raw.jsonl:3", "raw.jsonl:4"]
    (rejected,) = rows.rejected
    assert rejected.line == 2
    assert reason in rejected.reason
    assert rejected.row == line.decode(errors="backslashreplace")


WORDS = ["nan", "NaN", "None", "NULL", "N/A", "<NA>", "#N/A", "#DIV/0!", "undefined", " nan "]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(("name", "between"), [("a.csv", ","), ("a.tsv", "\t"), ("a.txt", ";")])
def test_a_word_for_a_missing_value_is_no_text_of_a_table(tmp_path, word, name, between):
    rows = [("input", "label"), ("nan是什么", "1"), (word, "0"), ("", "0"), ("None of this", "0")]
    read = read_labelled(write(tmp_path / name, table(*map(between.join, rows), header="")))
    assert [example.input for example in read.examples] == ["nan是什么", "None of this"]
    reason = f"input is {word.strip()!r}, which programs write for a missing value; expected a text"
    assert reasons(read) == [(3, reason), (4, "input is ''; expected a text that is not blank")]


def test_a_word_for_a_missing_value_is_no_text_of_a_workbook(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("openpyxl")
    frame = pandas.DataFrame({"input": ["一", *WORDS], "label": [1] * (len(WORDS) + 1)})
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    read = read_labelled(tmp_path / "a.xlsx")
    assert [example.input for example in read.examples] == ["一"]
    assert [row.line for row in read.rejected] == list(range(3, len(WORDS) + 3))


def test_a_word_for_a_missing_value_stays_a_text_of_json(raw):
    """JSON has null for a missing value, so a string is meant."""
    read = read_labelled(raw(encode([{"input": word, "label": 1} for word in WORDS])))
    assert [example.input for example in read.examples] == WORDS


def test_too_many_bad_rows_are_an_error_that_shows_ten(raw):
    rows = read_labelled(raw(encode(ROWS) + b"{\n" * 12))
    with pytest.raises(DataError) as error:
        limit_rejected(rows, 0.5)
    assert str(error.value).startswith("12 of 15 rows can't be used, more than prepare.max_rejected_fraction = 0.5")
    assert str(error.value).count("raw.jsonl:") == 10
    limit_rejected(rows, 0.8)


@pytest.mark.parametrize("between", ["", "a footer without a tab\n"])
def test_rows_that_a_quote_joins_count_one_by_one(tmp_path, between):
    lines = [f"text number {n}\t{n % 2}\n" for n in range(1000)]
    lines[100], lines[300], lines[600] = '"quoted text\t1\n', lines[300] + between, 'he said"\t0\n'
    path = write(tmp_path / "a.tsv", "input\tlabel\n" + "".join(lines))
    rows = read_labelled(path)
    assert len(rows.examples) == 499
    assert len(rows.rejected) == 501 + bool(between)
    assert rows.rejected[0].line == 102
    with pytest.raises(DataError, match="a quote that opens in one row closes in a later one"):
        limit_rejected(rows, 0.01)


def test_a_text_of_several_lines_is_one_row(tmp_path):
    content = 'label\tinput\n1\t"one\ntwo\nthree, 1\nfour"\n0\tfive\n'
    rows = read_labelled(write(tmp_path / "a.tsv", content))
    assert [example.input for example in rows.examples] == ["one\ntwo\nthree, 1\nfour", "five"]
    assert not rows.rejected


def test_groups_that_some_rows_lack_are_reported(raw):
    some = read_labelled(raw(encode([{"input": f"t{n}", "label": 1, "group": "" if n else "a"} for n in range(5)])))
    assert len(some.doubts) == 1
    assert some.doubts[0].startswith("4 of 5 rows of ")
    assert "rows of one case may end up in different splits" in some.doubts[0]
    for group in ("", "a"):
        assert not read_labelled(raw(encode([{"input": f"t{n}", "label": 1, "group": group} for n in range(5)]))).doubts


PACKED = gzip.compress(encode(ROWS), mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n", "has no rows"),
        (PACKED[:-9], "a damaged gzip file"),
        (PACKED[:12] + b"\xff\xff\xff" + PACKED[15:], "a damaged gzip file"),
    ],
)
def test_empty_and_damaged_files_are_errors(raw, content, message):
    with pytest.raises(DataError, match=message):
        read_labelled(raw(content))


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"nowhere.jsonl is no file"):
        read_labelled(Path("nowhere.jsonl"))
    with pytest.raises(DataError, match=r"tests is no file"):
        read_labelled(ROOT / "tests")


@given(json_lines(("input", "label", "group", "category")))
@settings(max_examples=300, deadline=None)
def test_each_row_of_json_lines_is_an_example_or_set_aside(tmp_path_factory, content):
    file = write(tmp_path_factory.getbasetemp() / "rows.jsonl", "\n".join([*content, '{"input": "a", "label": 1}']))
    rows = read_labelled(file)
    places = [int(e.source.rpartition(":")[2]) for e in rows.examples] + [row.line for row in rows.rejected]
    expected = [number for number, line in enumerate(content, 1) if line.strip()] + [len(content) + 1]
    assert sorted(places) == expected
    assert rows.total == len(expected)
