"""Files as people have them: each is read by the entry that `--check` printed."""

import csv
import gzip
import io
import json
import socket
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from stages import params
from stages.data.lines import DataError
from stages.errors import UserError
from stages.prepare.__main__ import command
from stages.prepare.check import check
from stages.prepare.sources import read_sources

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


@pytest.mark.parametrize("name", BINARY[2:])
def test_parquet_is_read_without_network_and_leaves_nothing(name, project, tmp_path, capsys, monkeypatch):
    project({}, {})
    path = tmp_path / name
    write_binary(path)
    import datasets  # noqa: F401  its import makes no request, but takes long

    def refuse(*args, **kwargs):
        raise AssertionError("a connection")

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    check(path, 0.01)
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "home").exists()


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
    assert f"bad.csv:{first}: label is 'maybe'; expected ['spam', 'ham'], as in `labels`" in printed
    assert f"bad.csv:{first + 1}: text is ''; expected a text that is not blank" in printed
    assert f"bad.csv:{first + 2}: no UTF-8 at byte 0" in printed
    assert f"bad.csv:{first + 3}: more columns than the header names" in printed
    assert "more bad rows than prepare.max_rejected_fraction = 0.01 allows" in printed
    assert entries["bad"]["labels"] == {"fraud": ["spam"], "legitimate": ["ham"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            table(["text", "label"], [TEXTS, words("A", "B")]),
            "labels a .10 rows., b .20 rows., whose meaning is unsure",
        ),
        (table(["x", "y"], [TEXTS, TEXTS]), "expected one of texts and one of labels"),
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


def test_a_broken_array_names_its_line(project):
    project({"a.json": '[\n{"input": "a", "label": 1, "label": 0},\n{"input": "b",\n "label": 1}\nx]'}, {})
    with pytest.raises(DataError, match=r"a.json:5: no JSON array from here on"):
        check(Path("data/raw/a.json"), 0.01)
