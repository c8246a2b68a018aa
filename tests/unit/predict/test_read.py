"""Rows are read from files and pipes, refused by line, and come back as they were written."""

import gzip
import json
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.lines import DataError
from stages.predict.read import count_rows, parse_row
from stages.predict.source import Source
from tests.unit.predict.process import (
    SIZE,
    Started,
    beside,
    fed,
    rows_of,
)


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_a_slow_pipe_loses_no_row(predict, undisturbed, rows, tmp_path, name):
    out = tmp_path / "o.jsonl"
    predict("--file", name, "--out", out, stdin=fed(rows, 0.01))
    assert out.read_bytes() == undisturbed


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_pieces_of_any_size_come_through_a_pipe_plain_or_packed(predict, tmp_path, piece, packed):
    whole = b"\xef\xbb\xbf" + b"".join(rows_of(9))
    whole = gzip.compress(whole) if packed else whole
    pieces = (whole[at : at + piece] for at in range(0, len(whole), piece))
    started = predict("--file", "-", "--out", "-", stdin=fed(pieces))
    assert [json.loads(line)["id"] for line in started.out.splitlines()] == list(range(9))


def test_a_bad_row_of_a_pipe_stops_the_run_and_a_fixed_input_resumes(
    folder, predict, undisturbed, file, rows, tmp_path
):
    out = tmp_path / "o.jsonl"
    bad = [*rows[: SIZE + 3], b'{"input": 7}\n', *rows[SIZE + 3 :]]
    started = Started(folder, "--file", "-", "--out", out, stdin=fed(bad))
    assert started.wait() == 1
    message = started.err.splitlines()[-1]
    assert message.startswith(f"error: standard input, line {SIZE + 4}: input is 7; expected a text")
    assert f"{SIZE} scored rows are kept" in message
    assert f"resumes after the {SIZE} rows" in predict("--file", file, "--out", out).said
    assert out.read_bytes() == undisturbed


def test_a_file_with_bad_rows_is_refused_before_anything_is_scored(tmp_path, rows):
    """There is no model here: that would be the next error."""
    (tmp_path / "params.yaml").touch()
    bad = [b'{"input": ""}\n'] * 12
    (tmp_path / "new.jsonl").write_bytes(b"".join([*rows, *bad]))
    started = Started(tmp_path, "--file", tmp_path / "new.jsonl", "--out", tmp_path / "o.jsonl")
    assert started.wait() == 1
    assert started.err.startswith(f"error: 12 of {len(rows) + 12} rows hold no text to classify:\n")
    assert started.err.count("new.jsonl:") == 10


ARRAY = '[{"input": "您好，\\n转账"},\n {"input": "x", "id": 1.10}]'
PLAIN = '您好，"转账"\n\n \nIt\\n is, x\n'


@pytest.mark.parametrize("name", ["a.json", "a b.json", "a.json.gz"])
@pytest.mark.parametrize(
    ("content", "column", "found"),
    [
        (ARRAY, "input", "is a JSON array; expected JSON Lines: run `"),
        (ARRAY.replace("[{", "\n[\n {"), "input", "is a JSON array; expected JSON Lines: run `"),
        (PLAIN, "input", "is plain text; expected JSON Lines: if each line is a text, run `"),
        ("[系统] 您好\n" + PLAIN, "文 本", "is plain text; expected JSON Lines: if each line is a text, run `"),
    ],
)
def test_what_is_no_json_lines_is_named_with_the_command_that_makes_them(
    predict, folder, tmp_path, name, content, column, found
):
    file, out = tmp_path / name, tmp_path / "o.jsonl"
    file.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    started = Started(folder, "--file", file, "--out", out, "--text-column", column)
    assert started.wait() == 1
    assert found in started.err
    assert started.err.count("\n") == 1
    if shutil.which("jq") is None:
        return
    subprocess.run(["bash", "-ec", started.err.split("`")[1]], check=True)
    predict("--file", f"{file}.jsonl", "--out", out, "--text-column", column)
    rows = [json.loads(line) for line in out.read_bytes().splitlines()]
    texts = [row["input"] for row in json.loads(ARRAY)] if content.strip()[-1] == "]" else content.split("\n")
    assert [row[column] for row in rows] == [text for text in texts if text.strip()]


@pytest.mark.parametrize(
    ("content", "command"),
    [(ARRAY, "pass it through `jq -c '.[]'`"), (PLAIN, "`grep '[^[:space:]]' | jq -R -c '{\"input\": .}'`")],
)
def test_a_pipe_of_no_json_lines_is_named_too(folder, content, command):
    started = Started(folder, "--file", "-", "--out", "-", stdin=fed([content.encode()]))
    assert started.wait() == 1
    assert command in started.err
    assert not started.out


@pytest.mark.parametrize("line", [b"7", b'"text"', b'["a", 1]', b'{"input": ', "您好".encode("gbk")])
def test_a_first_line_that_may_be_a_slip_is_named_as_a_row(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(line + b'\n{"input": "x"}\n')
    with pytest.raises(DataError, match="1 of 2 rows hold no text to classify:\n.*a.jsonl:1: "):
        count_rows(Source(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("options", [["--text", "x"], ["--text", "x", "--out", "o.jsonl"]])
def test_without_a_model_there_is_nothing_to_resume(tmp_path, options):
    (tmp_path / "params.yaml").touch()
    started = Started(tmp_path, *options)
    assert started.wait() == 1
    assert started.err == "error: models/selected holds no selected model: run `dvc repro` first\n"
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_input_without_rows_is_an_error(folder, tmp_path, content):
    (tmp_path / "new.jsonl").write_bytes(content)
    for file, stream in ((tmp_path / "new.jsonl", {}), ("-", {"stdin": fed([content])})):
        started = Started(folder, "--file", file, "--out", tmp_path / "o.jsonl", **stream)
        assert started.wait() == 1
        assert "is empty; expected JSON Lines with the key input" in started.err
        assert not (tmp_path / "o.jsonl").exists()
        assert not beside(tmp_path / "o.jsonl")


def test_a_file_that_loses_rows_while_it_is_read_is_an_error(folder, file, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("stages.predict.__main__.count_rows", lambda path: len(rows) + 1)  # as it was a moment ago
    started = Started(folder, "--file", file, "--out", tmp_path / "o.jsonl")
    assert started.wait() == 1
    assert f"held {len(rows) + 1} rows, and {len(rows)} when they were scored" in started.err
    assert not (tmp_path / "o.jsonl").exists()


def test_rows_that_a_quote_joins_are_refused_with_tabs_and_named_with_commas(tmp_path, capsys):
    joined = 'input\tid\n"免费领取\t1\n正常的文本\t2\n他说"\t3\n再见\t4\n'
    (tmp_path / "a.tsv").write_text(joined, encoding="utf-8")
    with pytest.raises(DataError, match=r"a.tsv, lines 2 to 4: a quote that opens in one row closes in a later one"):
        count_rows(Source(tmp_path / "a.tsv"))
    (tmp_path / "a.csv").write_text(joined.replace("\t", ","), encoding="utf-8")
    for _ in range(2):  # to count, and to score
        assert count_rows(Source(tmp_path / "a.csv")) == 2
    said = capsys.readouterr().err
    assert said.count("a.csv: 1 row(s) have several lines that look like rows, the first in line 2") == 1
    (tmp_path / "b.tsv").write_text('input\tid\n"one\ntwo, three"\t1\nfour\t2\n', encoding="utf-8")
    (tmp_path / "c.tsv").write_text('input\n"one\ntwo"\nthree\n', encoding="utf-8")
    assert [count_rows(Source(tmp_path / name)) for name in ("b.tsv", "c.tsv")] == [2, 2]  # texts of two lines


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"input": "x", "a": 1.10}', '{"input": "x", "a": 1.10, "label": true, "probability": 0.5}'),
        ('{"a":-0,"b":-0.0,"c":1E5,"input":"x"}', '{"a": -0, "b": -0.0, "c": 1E5, "input": "x", L}'),
        ('{"a": 123456789012345678901234567890, "input": "x"}', None),
        ('{"a": 0.1000000000000000055511151231257827, "input": "x"}', None),
        ('{"input": "\\u8f6c", "a": [ 1,  {"b":2.50} ], "c": null}', None),
        (' { "input" : "x" , "a" : "}{,:" } ', '{"input": "x", "a": "}{,:", L}'),
        (
            '{"label": 1, "input": "x", "probability": "p", "z": 0}',
            '{"label": true, "input": "x", "probability": 0.5, "z": 0}',
        ),
        ('{"l\\u0061bel": 1, "input": "x"}', '{"l\\u0061bel": true, "input": "x", "probability": 0.5}'),
        ('{"input": "x", "a": [1,\r2]}', '{"input": "x", "a": [1, 2], L}'),
        ('{"input": "a\u2028b\u0085c\U0001f600"}', None),
    ],
)
def test_the_keys_of_a_row_come_back_as_they_were_written(row, expected):
    added = '"label": true, "probability": 0.5'
    expected = f"{row[:-1]}, {added}}}" if expected is None else expected.replace("L}", added + "}")
    assert parse_row(row.encode()).classified(True, 0.5) == expected + "\n"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.booleans(), st.sampled_from([None, 1]), st.data())
@settings(max_examples=100, deadline=None)
def test_any_row_comes_back_with_its_keys_in_order(others, plain, indent, data):
    keys = data.draw(st.permutations([*(set(others) - {"input"}), "input"]))
    row = {key: "x" if key == "input" else others[key] for key in keys}
    line = json.dumps(row, ensure_ascii=plain, indent=indent).replace("\n", "\r")
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(row)
    if holds_surrogate(line):
        with pytest.raises(ValueError, match="a lone surrogate"):
            parse_row(line.encode())
        return
    parsed = parse_row(line.encode())
    found = json.loads(parsed.classified(True, 0.25))
    expected = row | {"label": True, "probability": 0.25}
    assert list(found) == list(expected)
    assert found == expected


def holds_surrogate(line: str) -> bool:
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
