"""Files as people have them: each is read by the entry that `--check` printed."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages import params
from stages.data.lines import DataError
from stages.errors import UserError
from stages.prepare.__main__ import command
from stages.prepare.check import check
from stages.prepare.guess import detect_encoding
from stages.prepare.sources import read_sources
from tests.conftest import ROOT

FRAUD = "我是公安局的，请把钱转到“安全账户”，第{n}号"
HARMLESS = "您好，您的快递到了；请到{n}号柜\n取件, 谢谢"
TEXTS = [(FRAUD if n % 3 == 0 else HARMLESS).format(n=n) for n in range(30)]
LABELS = [n % 3 == 0 for n in range(30)]
ENGLISH = [text.encode("ascii", "ignore").decode() + f" £{n} off, don’t call" for n, text in enumerate(TEXTS)]
FLAT = [text.replace("\n", " ") for text in TEXTS]


def table(header: list[str], columns: list[list], delimiter: str = ",", end: str = "\r\n") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    writer.writerows([*([header] if header else []), *zip(*columns, strict=True)])
    return out.getvalue()


def words(fraud: str, legitimate: str) -> list[str]:
    return [fraud if label else legitimate for label in LABELS]


def lines(rows: list[dict], end: str = "\n") -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)


ROWS = [{"input": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
YES = words("是", "否")
SPAM = words("spam", "ham")
PLAIN = table(["text", "label"], [TEXTS, words("1", "0")])
FILES = {  # name: content, texts that are read, and what the entry must hold
    "spam.csv": (table(["v1", "v2", "", ""], [SPAM, ENGLISH, [""] * 30, [""] * 30]).encode("cp1252"),
                 ENGLISH, "cp1252"),
    "gbk导出.csv": (table(["短信内容", "是否诈骗"], [TEXTS, YES]).encode("gbk"), TEXTS, "gb18030"),
    "tabs.tsv": (table(["label", "message"], [SPAM, TEXTS], "\t").encode(), TEXTS, "message"),
    "semicolons.csv": (table(["Message", "Category"], [TEXTS, SPAM], ";").encode(), TEXTS, "Message"),
    "bars.txt": (table(["text", "target"], [TEXTS, words("1.0", "0.0")], "|").encode(), TEXTS, "target"),
    "mark.csv": (b"\xef\xbb\xbf" + PLAIN.encode(), TEXTS, "text"),
    "unix.csv": (PLAIN.replace("\r\n", "\n").encode(), TEXTS, "text"),
    "packed.csv.gz": (gzip.compress(PLAIN.encode()), TEXTS, "text"),
    "packed_gbk.csv.gz": (gzip.compress(table(["内容", "标签"], [TEXTS, YES]).encode("gb18030")), TEXTS, "gb18030"),
    "utf16.txt": (table(["文本", "标签"], [TEXTS, YES], "\t").encode("utf-16"), TEXTS, "utf-16"),
    "headless.txt": (table([], [SPAM, FLAT], "\t").encode(), FLAT, '"columns"'[1:-1]),
    "stray.tsv": (table(["label", "text"], [SPAM, FLAT], "\t").replace("\t我是", '\t"我是', 1).encode(),
                  [FLAT[0], *FLAT[1:]], "quotes: false"),
    "blank_rows.csv": ((PLAIN.replace("\r\n谢", "谢") + ",\r\n\r\n,\r\n").encode(), TEXTS, "text"),
    "index.csv": (table(["", "text", "label"], [list(range(30)), TEXTS, words("True", "False")]).encode(),
                  TEXTS, "text"),
    "named_by_a_word.csv": (table(["text", "spam"], [TEXTS, words("1", "0")]).encode(), TEXTS, 'label: "spam"'),
    "诈骗.csv": (table(["内容", "诈骗"], [TEXTS, YES]).encode(), TEXTS, 'label: "诈骗"'),
    "commas.txt": (table([], [SPAM, [f"Well, {text}" for text in FLAT]], "\t").encode(),
                   [f"Well, {text}" for text in FLAT], "text: 2"),
    "2024.csv": (PLAIN.encode(), TEXTS, "data_2024"),
    "null.csv": (PLAIN.encode(), TEXTS, "data_null"),
    "array.json": (json.dumps(ROWS, ensure_ascii=False, indent=1).encode(), TEXTS, "pool"),
    "array_other.json": (json.dumps([{"content": t, "fraud": y} for t, y in zip(TEXTS, YES, strict=True)]).encode(),
                         TEXTS, "content"),
    "lines.jsonl": (lines(ROWS).encode(), TEXTS, "pool"),
    "lines_gbk.jsonl": (lines(ROWS, "\r\n").encode("gbk"), TEXTS, "gb18030"),
    "other_keys.jsonl": (lines([{"sms": t, "spam": s} for t, s in zip(TEXTS, SPAM, strict=True)]).encode(),
                         TEXTS, "sms"),
    "cases.csv": (table(["案号", "时间", "文本", "标签"],
                        [[f"{n // 3:03}" for n in range(30)], [f"2024/5/{n + 1} 9:05" for n in range(30)], TEXTS,
                         words("诈骗", "正常")]).encode(), TEXTS, "time"),
}  # fmt: skip
BINARY = ("book.xlsx", "second_sheet.xlsx", "rows.parquet", "typed[1].parquet")


def write_binary(path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"文本": TEXTS, "是否诈骗": YES, "案号": [n // 3 for n in range(30)]})
    if path.name == "book.xlsx":
        pytest.importorskip("openpyxl")
        frame.to_excel(path, index=False)
    elif path.name == "second_sheet.xlsx":
        pytest.importorskip("openpyxl")
        with pandas.ExcelWriter(path) as book:
            pandas.DataFrame().to_excel(book, sheet_name="empty", index=False)
            frame.to_excel(book, sheet_name="rows", index=False, startrow=2)
    else:
        pytest.importorskip("datasets")
        typed = frame.assign(是否诈骗=LABELS, 时间=pandas.date_range("2024-01-01", periods=30))
        (typed if "typed" in path.name else frame).to_parquet(path)


def printed_entry(capsys) -> tuple[str, dict]:
    printed = capsys.readouterr().out
    entries = yaml.safe_load("datasets:" + printed.rpartition("datasets:")[2])["datasets"]
    return printed, entries


@pytest.mark.parametrize("name", [*FILES, *BINARY])
def test_each_file_is_read_by_the_entry_that_check_prints(name, project, tmp_path, capsys, monkeypatch):
    project({}, {})
    path = Path("data/raw") / name
    path.parent.mkdir(parents=True)
    content, texts, held = FILES.get(name, (None, TEXTS, "columns"))
    if content is None:
        write_binary(path)
    else:
        path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["prepare", "--check", str(path)])
    command()
    printed, entries = printed_entry(capsys)
    assert held in printed.rpartition("datasets:")[2]
    ((key, entry),) = entries.items()
    project({}, {f"datasets/{key}": entry, "dataset": key})
    own, _ = read_sources(params.load())
    rows = own["pool"]
    assert not rows.rejected
    assert [example.label for example in rows.examples] == LABELS
    read = [example.input.strip('"') for example in rows.examples]
    assert read == texts if name != "blank_rows.csv" else len(read) == 30


OFFLINE = """
import socket, sys
def refuse(*args):
    raise AssertionError("a connection")
socket.socket.connect = refuse
from stages.prepare.__main__ import command
command()
"""


def test_parquet_is_read_without_network_and_leaves_nothing_outside(project, tmp_path):
    project({}, {})
    write_binary(tmp_path / "rows.parquet")
    places = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "temporary", "XDG_CACHE_HOME": tmp_path / "cache"}
    for folder in places.values():
        folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {key: str(folder) for key, folder in places.items()} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OFFLINE, "--check", "rows.parquet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "30 of 30 rows can be used" in done.stdout, done.stderr
    assert [path for folder in places.values() for path in folder.rglob("*")] == []
    assert list(Path("runs").iterdir()) == []


def test_check_lists_bad_rows_with_their_lines(project, capsys):
    rows = table(["text", "label"], [TEXTS, SPAM], end="\n").encode().split(b"\n")
    project({"bad.csv": ""}, {})
    Path("data/raw/bad.csv").write_bytes(
        b"\n".join([*rows[:-1], b"more,maybe", b",ham", b"\xff\xfe,spam", b"a,b,ham", b""])
    )
    check(Path("data/raw/bad.csv"), 0.01)
    printed, entries = printed_entry(capsys)
    first = len(rows)
    assert "30 of 34 rows can be used, 10 of them fraud" in printed
    assert "check: as fraud: '我是公安局的" in printed
    assert f"bad.csv:{first}: label is 'maybe'; expected ['spam', 'ham'], as in `labels`" in printed
    assert f"bad.csv:{first + 1}: text is ''; expected a text that is not blank" in printed
    assert f"bad.csv:{first + 2}: no UTF-8 at byte 0" in printed
    assert f"bad.csv:{first + 3}: more columns than the header names" in printed
    assert "more bad rows than prepare.max_rejected_fraction = 0.01 allows" in printed
    assert entries["bad"]["labels"] == {"fraud": ["spam"], "legitimate": ["ham"]}


def test_a_file_in_data_raw_is_not_to_be_copied_onto_itself(project, capsys):
    project({"a.csv": PLAIN}, {})
    for path in (Path("data/raw/a.csv"), Path("data/raw/a.csv").absolute()):
        check(path, 0.01)
        printed, entries = printed_entry(capsys)
        assert "first copy it" not in printed
        assert entries["a"]["pool"] == "data/raw/a.csv"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            table(["text", "label"], [TEXTS, words("A", "B")]),
            "labels a .10 rows., b .20 rows., whose meaning is unsure",
        ),
        (table(["text", "label"], [TEXTS, words("假", "真")]), "labels 假 .10 rows., 真 .20 rows., whose meaning"),
        (table(["x", "y"], [TEXTS, TEXTS]), "expected one of texts and one of labels"),
        (table(["text", "is_legit"], [TEXTS, words("1", "0")]), "a 1 in the column is_legit may mean a harmless text"),
        (table(["text", "read", "seen"], [TEXTS, words("1", "0"), words("0", "1")]), "columns read, seen, each of"),
        (table(["text", "label"], [TEXTS[:3] * 10, ["1", "0", "-1"] * 10]), "labels -1 .10 rows., 0 .10 rows."),
        (table(["text", "label"], [TEXTS, ["spam"] * 30]), "30 of 30 usable rows are fraud; expected some of both"),
    ],
)
def test_check_says_what_it_can_not_guess(content, message, project):
    project({"a.csv": content}, {})
    with pytest.raises(UserError, match=message):
        check(Path("data/raw/a.csv"), 0.01)


def test_numbers_that_excel_has_rounded_are_no_groups(project):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("openpyxl")
    project({}, {"datasets/sample": {"pool": "data/raw/a.xlsx"}})
    Path("data/raw").mkdir(parents=True)
    rows = {"input": ["a", 1.5, 3], "label": [1, 0, True], "group": [123456789012345678, 7, 8.0]}
    pandas.DataFrame(rows, dtype=object).to_excel("data/raw/a.xlsx", index=False)
    rows = read_sources(params.load())[0]["pool"]
    assert [(e.input, e.label, e.group, e.source) for e in rows.examples] == [
        ("1.5", False, "7", "a.xlsx:3"),
        ("3", True, "8", "a.xlsx:4"),
    ]
    assert "too large to be exact" in rows.rejected[0].reason


@pytest.mark.parametrize("end", ["\nx]", ']\n[{"input": "c", "label": 0}]'])
def test_a_broken_array_names_its_line(project, end):
    project({"a.json": '[\n{"input": "a", "label": 1},\n{"input": "b",\n "label": 0}' + end}, {})
    with pytest.raises(DataError, match=r"a.json:5: no JSON array from here on, after [12] elements"):
        check(Path("data/raw/a.json"), 0.01)


def test_a_number_that_python_does_not_read_is_an_error_of_the_array(project):
    project({"a.json": '[{"input": "a", "label": 1},\n{"input": "b", "label": 0, "id": ' + "1" * 5000 + "}]"}, {})
    with pytest.raises(DataError, match=r"a.json:1: no JSON array from here on, after 1 elements"):
        check(Path("data/raw/a.json"), 0.01)


@pytest.mark.parametrize("encoding", ["utf16", "UTF_16", "u16", "unicodelittleunmarked", "utf32"])
def test_wide_encodings_are_known_by_all_their_names(encoding, project):
    """Their line ends are more than a byte: by lines of bytes, texts would be others, without any error."""
    project({}, {"datasets/sample": {"pool": "data/raw/a.jsonl", "encoding": encoding}})
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/a.jsonl").write_bytes(lines(ROWS).encode(encoding))
    rows = read_sources(params.load())[0]["pool"]
    assert [example.input for example in rows.examples] == TEXTS
    assert not rows.rejected


def test_elements_of_an_array_in_one_line_have_sources_of_their_own(project):
    project({"a.json": json.dumps(ROWS)}, {"datasets/sample": {"pool": "data/raw/a.json"}})
    rows = read_sources(params.load())[0]["pool"]
    assert [example.source for example in rows.examples] == [f"a.json:{n}" for n in range(1, 31)]


def test_a_named_column_that_no_row_has_is_an_error(project):
    entry = {"pool": "data/raw/a.jsonl", "columns": {"group": "caseid"}}
    project({"a.jsonl": lines(ROWS)}, {"datasets/sample": entry})
    with pytest.raises(DataError, match=r"a.jsonl has no row with caseid; expected what `columns` names"):
        read_sources(params.load())


def test_a_column_that_is_there_twice_is_an_error(project):
    content = table(["input", "label", "group", "group"], [TEXTS, YES, YES, TEXTS])
    project({"a.csv": content}, {"datasets/sample": {"pool": "data/raw/a.csv"}})
    with pytest.raises(DataError, match=r"begins with the columns .*'group', 'group'"):
        read_sources(params.load())


def test_sheets_that_all_have_the_columns_are_an_error(project):
    """One of them would be left out unnoticed."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("openpyxl")
    project({}, {})
    path = Path("data/raw/a.xlsx")
    path.parent.mkdir(parents=True)
    frame = pandas.DataFrame({"text": TEXTS, "label": YES})
    with pandas.ExcelWriter(path) as book:
        pandas.DataFrame({"说明": ["a", "b"]}).to_excel(book, sheet_name="notes", index=False)
        frame.to_excel(book, sheet_name="may", index=False)
        frame.to_excel(book, sheet_name="june", index=False)
    with pytest.raises(DataError, match="several sheets with the columns text, label: may, june; expected one"):
        check(path, 0.01)


def test_classes_of_a_parquet_file_are_read_by_their_names(project):
    """The library `datasets` writes classes as numbers, so 0 may be fraud."""
    datasets = pytest.importorskip("datasets")
    project(
        {}, {"datasets/sample": {"pool": "data/raw/a.parquet", "labels": {"fraud": ["spam"], "legitimate": ["ham"]}}}
    )
    Path("data/raw").mkdir(parents=True)
    features = datasets.Features(
        {"input": datasets.Value("string"), "label": datasets.ClassLabel(names=["spam", "ham"])}
    )
    rows = {"input": ["a", "b", "c", None], "label": [0, 1, None, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet("data/raw/a.parquet")
    rows = read_sources(params.load())[0]["pool"]
    assert [(example.input, example.label) for example in rows.examples] == [("a", True), ("b", False)]
    assert [row.line for row in rows.rejected] == [3, 4]


@pytest.mark.parametrize("name", ["cut.parquet", "a.parquet.gz", "a.xlsx.gz", "cut.xlsx", "cut.csv.gz", "empty.csv"])
def test_files_that_can_not_be_read_are_named(name, project):
    project({}, {"datasets/sample": {"pool": f"data/raw/{name}"}})
    path = Path("data/raw") / name
    path.parent.mkdir(parents=True)
    whole = path.with_name(name.replace("cut", "whole").removesuffix(".gz"))
    if name.startswith(("cut.parquet", "a.parquet", "cut.xlsx", "a.xlsx")):
        frame = pytest.importorskip("pandas").DataFrame({"input": TEXTS, "label": LABELS})
        (frame.to_excel if ".xlsx" in name else frame.to_parquet)(whole)
    else:
        whole.write_text("" if name == "empty.csv" else PLAIN, encoding="utf-8")
    content = whole.read_bytes()
    content = gzip.compress(content) if name.endswith(".gz") else content
    path.write_bytes(content[: len(content) // 2] if name.startswith("cut") else content)
    with pytest.raises(DataError, match=name):
        read_sources(params.load())


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("euc-kr", "안녕하세요 고객님, 택배가 도착했습니다. 확인을 위해 아래 링크를 눌러 주세요."),
        ("shift_jis", "お荷物のお届けにあがりましたが不在の為持ち帰りました。ご確認ください。"),
        ("euc-jp", "お荷物のお届けにあがりましたが不在の為持ち帰りました。ご確認ください。"),
        ("big5", "您好，您的快遞到了，請點擊連結領取。我們明天下午三點開會，請把資料發給我。"),
        ("cp1251", "Здравствуйте, ваша посылка прибыла. Подтвердите получение по ссылке."),
    ],
)
def test_an_encoding_that_can_not_be_guessed_is_not_taken_for_chinese(tmp_path, encoding, text):
    path = tmp_path / "new.csv"
    path.write_bytes(f"text,label\n{text},1\n{text},0\n".encode(encoding))
    with pytest.raises(UserError, match="the encoding can't be guessed"):
        detect_encoding(path)


def test_a_text_cut_within_a_character_is_still_utf_8(tmp_path):
    path = tmp_path / "cut.csv"
    path.write_bytes(b"\n".join(text.encode()[:-1] + b",1" for text in TEXTS * 10))
    assert detect_encoding(path) == ""
    path.write_bytes(b"\n".join(text.encode("gb18030")[:-1] + b",1" for text in TEXTS * 10))
    assert detect_encoding(path) == "gb18030"
