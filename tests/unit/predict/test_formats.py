"""CSV, TSV and Parquet in and out, texts of the command line, and sentences."""

import csv
import datetime
import decimal
import errno
import gzip
import io
import json
import os
import signal
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.predict import convert
from tests.unit.predict.process import SIZE, Started, beside, wait_until, windows_kept

TEXTS = [f"第{n}句：请{'转账' if n % 3 else '问好'}，\n\n谢谢" for n in range(2 * SIZE + 3)]
ADDED = ["label", "probability", "log_odds"]


def table(delimiter: str = ",", texts: list[str] = TEXTS, end: str = "\r\n") -> bytes:
    """A table whose texts hold line ends, delimiters and quotes."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerow(["id", "text", "a\tb"])
    writer.writerows([[f"0{n}", f'{text}, "ok"\t\r\n', ""] for n, text in enumerate(texts)])
    return file.getvalue().encode()


def rows_in(content: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline=""), delimiter=delimiter))


@pytest.fixture(scope="module")
def verdicts(predict, tmp_path_factory) -> list[dict]:
    """What JSON Lines of the same texts give."""
    folder = tmp_path_factory.mktemp("verdicts")
    rows = rows_in(table())
    (folder / "a.jsonl").write_text("".join(json.dumps({"input": row["text"]}) + "\n" for row in rows))
    predict("--file", folder / "a.jsonl", "--out", folder / "o.jsonl")
    return [json.loads(line) for line in (folder / "o.jsonl").read_bytes().splitlines()]


def verdict(row: dict) -> tuple:
    return row["label"], row["probability"], row["log_odds"]


@pytest.mark.parametrize(
    ("name", "delimiter", "packed"),
    [("a.csv", ",", False), ("a.CSV", ",", False), ("a.tsv", "\t", False), ("a.csv.gz", ",", True)],
)
def test_a_table_comes_back_with_the_verdict_of_json_lines(predict, verdicts, tmp_path, name, delimiter, packed):
    file, out = tmp_path / name, tmp_path / f"o.{name}"
    content = b"\xef\xbb\xbf" + table(delimiter) + b"\n,,\n".replace(b",", delimiter.encode())
    file.write_bytes(gzip.compress(content) if packed else content)
    predict("--file", file, "--out", out, "--text-column", "text")
    found = out.read_bytes()
    found = rows_in(gzip.decompress(found) if packed else found, delimiter)
    assert [list(row) for row in found[:1]] == [["id", "text", "a\tb", *ADDED]]
    assert [{key: row[key] for key in ("id", "text", "a\tb")} for row in found] == rows_in(table())
    expected = [tuple(json.dumps(each) for each in verdict(row)) for row in verdicts]
    assert [verdict(row) for row in found] == expected
    assert not beside(out)


def test_a_table_becomes_json_lines_and_these_a_table_again(predict, verdicts, tmp_path):
    (tmp_path / "a.csv").write_bytes(table())
    predict("--file", tmp_path / "a.csv", "--out", tmp_path / "o.jsonl.gz", "--text-column", "text")
    lines = gzip.decompress((tmp_path / "o.jsonl.gz").read_bytes()).splitlines()
    assert [verdict(json.loads(line)) for line in lines] == [verdict(row) for row in verdicts]
    more = b'{"text": "x", "id": 1.10, "list": [1,  "a"], "none": null, "probability": "old"}'
    (tmp_path / "b.jsonl").write_bytes(b"\n".join([*lines, more]))
    predict("--file", tmp_path / "b.jsonl", "--out", tmp_path / "o.csv", "--text-column", "text")
    *same, last = rows_in((tmp_path / "o.csv").read_bytes())
    assert [row["text"] for row in same] == [row["text"] for row in rows_in(table())]
    assert list(last) == ["id", "text", "a\tb", *ADDED, "list", "none"]
    assert (last["id"], last["a\tb"], last["list"], last["none"]) == ("1.10", "", '[1,  "a"]', "")
    assert last["probability"] != "old"


def typed_table() -> pa.Table:
    """A Parquet file's columns of many types, with gaps."""
    rows = len(TEXTS)
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5)
    return pa.table(
        {
            "when": pa.array([moment, None] + [moment] * (rows - 2), pa.timestamp("ns")),
            "text": pa.array([row["text"] for row in rows_in(table())]).dictionary_encode(),
            "amount": pa.array([decimal.Decimal("1.10")] * rows),
            "number": pa.array([None, 2**60] * (rows // 2) + [1], pa.int64()),
            "share": pa.array([float("nan")] * rows),
            "tags": pa.array([["a", None]] * rows),
            "probability": pa.array(["old"] * rows),
        }
    )


def test_a_parquet_file_keeps_the_types_of_its_columns(predict, verdicts, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "ROWS_AT_ONCE", SIZE)
    whole, out = typed_table(), tmp_path / "o.parquet"
    pq.write_table(whole, tmp_path / "a.parquet", row_group_size=7)
    predict("--file", tmp_path / "a.parquet", "--out", out, "--text-column", "text")
    found = pq.read_table(out)
    assert found.column_names == [
        "when",
        "text",
        "amount",
        "number",
        "share",
        "tags",
        "probability",
        "label",
        "log_odds",
    ]
    for name in ("when", "amount", "number", "tags", "text"):
        assert found[name].equals(whole[name]) or found[name].to_pylist() == whole[name].to_pylist()
        assert found.schema.field(name).type == whole.schema.field(name).type
    assert [verdict(row) for row in found.select(ADDED).to_pylist()] == [verdict(row) for row in verdicts]


def test_a_parquet_file_becomes_json_lines_and_these_a_parquet_file(predict, verdicts, tmp_path):
    pq.write_table(typed_table(), tmp_path / "a.parquet")
    predict("--file", tmp_path / "a.parquet", "--out", tmp_path / "o.jsonl", "--text-column", "text")
    first, second = map(json.loads, (tmp_path / "o.jsonl").read_bytes().splitlines()[:2])
    assert first["when"].startswith("2026-01-02 03:04:05")
    assert (first["amount"], first["number"], first["share"], first["tags"]) == ("1.10", None, None, ["a", None])
    assert (second["when"], second["number"]) == (None, 2**60)
    assert verdict(first) == verdict(verdicts[0])
    lines = b'{"input": "x", "n": 1, "m": 1, "s": "a", "b": true, "l": [1.0]}\n{"input": "y", "m": 1.5, "n": null}\n'
    (tmp_path / "b.jsonl").write_bytes(lines)
    predict("--file", tmp_path / "b.jsonl", "--out", tmp_path / "o.parquet", "--explain")
    found = pq.read_table(tmp_path / "o.parquet")
    types = {name: str(found.schema.field(name).type) for name in found.column_names}
    sentences = "list<element: struct<text: string, effect: double>>"
    assert types == {"input": "string", "n": "int64", "m": "double", "s": "string", "b": "bool", "l": "string",
                     "label": "bool", "probability": "double", "log_odds": "double",
                     "sentences": sentences}  # fmt: skip
    assert found.select(["n", "m", "s", "b", "l"]).to_pylist() == [
        {"n": 1, "m": 1.0, "s": "a", "b": True, "l": "[1.0]"},
        {"n": None, "m": 1.5, "s": None, "b": None, "l": None},
    ]
    assert [each["text"] for each in found["sentences"][0].as_py()] == ["x"]


def test_an_ended_run_over_a_table_resumes(folder, predict, tmp_path):
    pipe, file, plain, out = (tmp_path / name for name in ("pipe.csv", "a.csv", "plain.csv", "o.csv"))
    os.mkfifo(pipe)
    content = table()
    file.write_bytes(content)
    started = Started(folder, "--file", pipe, "--out", out, "--text-column", "text")
    with pipe.open("wb") as feed:
        feed.write(content[: content.index(b"\r\n0%d," % (SIZE + 2))])
        feed.flush()
        wait_until(lambda: windows_kept(out) == 1)
        started.signal(signal.SIGKILL)
        started.wait()
    assert f"resumes after the {SIZE} rows" in predict("--file", file, "--out", out, "--text-column", "text").said
    predict("--file", file, "--out", plain, "--text-column", "text")
    assert out.read_bytes() == plain.read_bytes()


def test_a_disk_that_fills_at_the_end_leaves_the_old_file_and_the_scored_rows(folder, predict, tmp_path):
    file, out = tmp_path / "a.csv", tmp_path / "o.csv"
    file.write_bytes(table())
    out.write_bytes(b"old")
    out.chmod(0o640)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "write_table", full)
        started = Started(folder, "--file", file, "--out", out, "--text-column", "text")
        assert started.wait() == 1
    assert "could not be written: [Errno 28] No space left on device. Make room" in started.err
    assert f"{2 * SIZE} scored rows are kept" in started.err
    assert out.read_bytes() == b"old"
    assert f"resumes after the {2 * SIZE} rows" in predict("--file", file, "--out", out, "--text-column", "text").said
    assert len(rows_in(out.read_bytes())) == len(TEXTS)
    assert out.stat().st_mode & 0o777 == 0o640
    assert not beside(out)


def test_a_parquet_file_that_changes_meanwhile_is_an_error(folder, tmp_path, monkeypatch):
    whole, joined = typed_table(), convert.joined
    pq.write_table(whole, tmp_path / "a.parquet")

    def change(*arguments):
        pq.write_table(whole.slice(1), tmp_path / "a.parquet")
        return joined(*arguments)

    monkeypatch.setattr(convert, "joined", change)
    started = Started(
        folder, "--file", tmp_path / "a.parquet", "--out", tmp_path / "o.parquet", "--text-column", "text"
    )
    assert started.wait() == 1
    assert "a.parquet has changed while it was scored" in started.err
    assert not (tmp_path / "o.parquet").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"id,t\n1,x\n",
            "has the columns ['id', 't']; expected text: name the text's column with --text-column",
        ),
        ("a.csv", b"id,text,id\n1,x,2\n", "has the column 'id' twice"),
        ("a.csv", b'id,text\n1,"a\nb"\n2,a,b\n', "line 4: 3 columns; expected 2, as in the header"),
        ("a.tsv", b'id\ttext\n1\t"a\n', "line 2: no CSV in the row that begins here: unexpected end of data"),
        ("a.csv", "id,text\n1,转账\n".encode("gbk"), "line 2: no UTF-8 at byte 4: convert the file"),
        ("a.csv", b"id,text\n1, \n2,x\n", "1 of 2 rows hold no text to classify"),
        (
            "a.csv",
            b"id,text\n1,nan\n2,x\n3, None \n",
            "2 of 3 rows hold no text to classify:\n  {}:2: text is 'nan', which programs write for a missing value; "
            "expected a text\n  {}:4: text is 'None', which",
        ),
        ("a.tsv", b"id\ttext\n1\t#N/A\n", "text is '#N/A', which programs write for a missing value"),
        ("a.csv", b"id,text\n", "is empty; expected rows with the column text"),
        ("a.csv", b"PAR1", "is a Parquet file; expected text in UTF-8"),
        ("a.parquet", b"id,text\n1,x\n", "is no Parquet file that can be read"),
        ("none.parquet", None, "none.parquet is no Parquet file that can be read ("),
    ],
)
def test_a_file_that_can_not_be_read_is_refused_before_the_model_is_loaded(tmp_path, name, content, message):
    (tmp_path / "params.yaml").touch()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    started = Started(tmp_path, "--file", tmp_path / name, "--out", tmp_path / "o.jsonl", "--text-column", "text")
    assert started.wait() == 1
    assert message.replace("{}", str(tmp_path / name)) in started.err


def test_a_word_for_a_missing_value_is_a_text_of_json_and_none_of_a_parquet_file(folder, predict, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"input": "nan"}\n{"input": "None"}\n')
    predict("--file", tmp_path / "a.jsonl", "--out", tmp_path / "o.csv")
    assert [row["input"] for row in rows_in((tmp_path / "o.csv").read_bytes())] == ["nan", "None"]
    predict("--text", "nan")
    pq.write_table(pa.table({"input": ["您好", "nan", None]}), tmp_path / "a.parquet")
    started = Started(folder, "--file", tmp_path / "a.parquet", "--out", tmp_path / "o.jsonl")
    assert started.wait() == 1
    assert "2 of 3 rows hold no text to classify" in started.err
    assert "a.parquet:2: input is 'nan', which programs write" in started.err


FOREIGN = {
    **{f"o{ending}": ending for ending in (".xlsx", ".xls", ".xlsm", ".ods", ".feather", ".arrow", ".avro", ".orc")},
    **{f"o{ending}": ending for ending in (".xml", ".html", ".zip", ".tar")},
    **{"O.XLSX": ".xlsx", "o.csv.zip": ".zip", "o.xlsx.gz": ".xlsx", "o.tar.gz": ".tar"},
}


@pytest.mark.parametrize("name", ["o", "o.txt", "o.out", "o.json", "o.v1.2", "o.gz"])
def test_a_name_without_a_known_ending_takes_json_lines(predict, tmp_path, name):
    predict("--text", "您好", "--out", tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert json.loads(gzip.decompress(content) if name.endswith(".gz") else content)["input"] == "您好"


def test_an_output_that_can_not_be_made_is_refused_first(folder, tmp_path):
    (tmp_path / "params.yaml").touch()
    (tmp_path / "a.jsonl").write_text('{"input": "x"}')
    os.mkfifo(tmp_path / "pipe.csv")
    for out, message in (
        ("pipe.csv", "is a pipe or a device, which takes JSON Lines"),
        ("o.parquet.gz", "expected a name without .gz"),
        *(
            (name, f"predict writes no {ending}; expected a name in .jsonl, .csv or")
            for name, ending in FOREIGN.items()
        ),
    ):
        started = Started(tmp_path, "--file", tmp_path / "a.jsonl", "--out", tmp_path / out)
        assert started.wait() == 1
        assert message in started.err
        assert not (tmp_path / out).is_file()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        started = Started(tmp_path, "--file", tmp_path / "a.jsonl", "--out", tmp_path / "o.parquet")
        assert started.wait() == 1
    assert "pip install -r requirements-tables.txt" in started.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--file", "a.csv"], "--file needs --out"),
        (["--text", "x", "--file", "a.csv", "--out", "-"], "not allowed with argument"),
        (["--out", "-"], "one of the arguments --text --file is required"),
        (["--text", "x", "--text-column", "label"], "the verdict has a key of that name"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, message):
    (tmp_path / "params.yaml").touch()
    started = Started(tmp_path, *options)
    assert started.wait() == 2
    assert message in started.err


def test_texts_of_the_command_line_give_a_line_each(folder, predict, verdicts, tmp_path):
    started = predict("--text", TEXTS[0], "--text", verdicts[1]["input"])
    found = [json.loads(line) for line in started.out.splitlines()]
    assert [row["input"] for row in found] == [TEXTS[0], verdicts[1]["input"]]
    assert found[1].keys() == {"input", *ADDED}
    assert found[1]["log_odds"] == pytest.approx(verdicts[1]["log_odds"], abs=1e-5)  # the batch is another
    predict("--text", "您好", "--text-column", "text", "--out", tmp_path / "o.csv")
    assert rows_in((tmp_path / "o.csv").read_bytes())[0]["text"] == "您好"
    blank = Started(folder, "--text", "x", "--text", " ")
    assert blank.wait() == 1
    assert "--text:2: input is ' '; expected a text that is not blank" in blank.err


def test_sentences_are_explained_and_the_verdict_stays_the_same(folder, predict, file, undisturbed, tmp_path):
    out = tmp_path / "o.jsonl"
    predict("--file", file, "--out", out, "--explain")
    found = [json.loads(line) for line in out.read_bytes().splitlines()]
    for row, plain in zip(found, map(json.loads, undisturbed.splitlines()), strict=True):
        sentences = row.pop("sentences")
        assert row == plain
        assert "".join(each["text"] for each in sentences) == row["input"]
        assert all(each.keys() == {"text", "effect"} for each in sentences)
    started = Started(folder, "--file", "/dev/null", "--out", out, "--explain")
    assert started.wait() == 1


def test_sentences_of_an_earlier_verdict_go_without_explain(predict, file, undisturbed, tmp_path):
    explained, again = tmp_path / "explained.jsonl", tmp_path / "again.jsonl"
    predict("--file", file, "--out", explained, "--explain")
    predict("--file", explained, "--out", again)
    assert again.read_bytes() == undisturbed
    for source, out in ((file, tmp_path / "a.parquet"), (tmp_path / "a.parquet", tmp_path / "b.parquet")):
        predict("--file", source, "--out", out, *(["--explain"] if source == file else []))
    assert set(pq.read_table(tmp_path / "b.parquet").column("sentences").to_pylist()) == {None}


def test_columns_of_ones_own_stay_in_a_classified_file(predict, tmp_path):
    own = [
        {"input": "您好", "band": "own", "sentences": "side effect"},
        {"input": "再见", "band": None, "sentences": '["effect"]'},
        {"input": "多谢", "band": "blocked", "sentences": "[effect"},
    ]
    table = pa.Table.from_pylist(own)
    far = pa.array([0, 1, 10**18]).cast(pa.timestamp("ms"))  # beyond what Python holds
    pq.write_table(table.append_column("far", far), tmp_path / "0.parquet")
    (tmp_path / "0.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in own))
    for ending in ("parquet", "jsonl"):
        for number in (0, 1):
            predict("--file", tmp_path / f"{number}.{ending}", "--out", tmp_path / f"{number + 1}.{ending}")
    found = pq.read_table(tmp_path / "2.parquet")
    assert found.column("far").equals(pa.chunked_array([far]))
    names = ["input", "band", "sentences"]
    assert found.select(names).to_pylist() == own
    lines = [json.loads(line) for line in (tmp_path / "2.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in names} for row in lines] == own
