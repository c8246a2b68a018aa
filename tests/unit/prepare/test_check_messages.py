"""What `--check` and the reader of tables say about files that no entry reads, or that an entry reads in part."""

import gzip
import re
import shlex
import sys
from pathlib import Path

import pytest

from stages.data.layout import Layout
from stages.data.lines import DataError
from stages.errors import UserError
from stages.prepare.__main__ import command
from stages.prepare.check import check
from stages.prepare.dialogues import read_dialogues
from stages.prepare.read import read_labelled
from tests.unit.prepare.tables import PREPARE, table, write

FRAUD = "我是公安局的，请把钱转到安全账户，第{n}号"
HARMLESS = "您好，您的快递到了；请到{n}号柜取件，谢谢"
ROWS = [f"{(HARMLESS if n % 3 else FRAUD).format(n=n)},{'正常' if n % 3 else '诈骗'},{n // 2},微信" for n in range(30)]
HEADER = "内容,类别,{},渠道\n"
LAYOUT = Layout({"text": "内容", "label": "类别"}, {"诈骗": True, "正常": False})


@pytest.mark.parametrize("name", ["案件号", "案件ID", "对话编号", "Case No", "conversation_id"])
def test_a_usual_name_of_a_case_is_the_group(project, capsys, name):
    project({"a.csv": table(*ROWS, header=HEADER.format(name))}, {})
    check(Path("data/raw/a.csv"), 0.01)
    printed = capsys.readouterr().out
    assert f'group: "{name}"' in printed
    assert "check: columns that are not used: 渠道\n" in printed


def test_columns_that_are_not_used_are_named_with_what_a_missing_group_does(project, capsys):
    project({"a.csv": table(*ROWS, header=HEADER.format("编码"))}, {})
    check(Path("data/raw/a.csv"), 0.01)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "not used" in line]
    assert line == (
        "check: columns that are not used: 编码, 渠道. If one names a case or a speaker, add `group: NAME` to "
        "`columns`: otherwise rows of a case land in train and test alike"
    )
    project({"b.csv": table(*(row.rsplit(",", 2)[0] for row in ROWS), header="内容,类别\n")}, {})
    check(Path("data/raw/b.csv"), 0.01)
    assert "not used" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", r"empty.csv is empty; expected rows"),
        ("blank.csv", b"\n \r\n", r"blank.csv is empty; expected rows"),
        ("empty.jsonl", b"", r"empty.jsonl is empty; expected rows"),
        ("empty.csv.gz", gzip.compress(b"", mtime=0), r"empty.csv.gz is empty; expected rows"),
        ("a.csv", "内容,类别\n".encode(), "a.csv has no rows below the header 内容, 类别; expected"),
        ("a.jsonl", b"{\n{\n", "a.jsonl has no row that can be read; line 1: no JSON"),
    ],
    ids=["empty table", "blank lines", "empty lines", "empty gzip", "header alone", "broken lines"],
)
def test_a_file_without_rows_is_said_to_have_none(project, name, content, message):
    project({name: ""}, {})
    Path("data/raw", name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        check(Path("data/raw", name), 0.01)


@pytest.mark.parametrize(
    ("encodings", "count", "first"),
    [
        (["utf-8"] * 16 + ["gbk"] * 15, 15, 17),
        (["gbk"] * 16 + ["utf-8"] * 15, 16, 1),
        (["utf-8"] + ["gbk"] * 30, 30, 2),
    ],
    ids=["UTF-8 first", "GBK first", "header in UTF-8"],
)
def test_a_file_in_two_encodings_is_said_to_be_one(project, encodings, count, first):
    texts = [HEADER.format("案件号").strip(), *ROWS]
    project({"a.csv": ""}, {})
    encoded = [text.encode(encoding) for text, encoding in zip(texts, encodings, strict=True)]
    Path("data/raw/a.csv").write_bytes(b"\n".join(encoded))
    with pytest.raises(UserError, match=f"{count} lines are no UTF-8, the first is line {first}, while others are"):
        check(Path("data/raw/a.csv"), 0.01)


def test_check_prints_no_entry_for_a_header_in_another_encoding_than_the_rows(project, capsys):
    """The names of the columns in the entry would be no text."""
    project({"a.csv": ""}, {})
    Path("data/raw/a.csv").write_bytes(HEADER.format("案件号").encode("gbk") + "\n".join(ROWS).encode())
    with pytest.raises(UserError, match="a.csv: the header is in another encoding than the rows"):
        check(Path("data/raw/a.csv"), 0.01)


def test_a_header_in_another_encoding_names_the_encoding_and_a_command_that_a_shell_takes(project, capsys, monkeypatch):
    project({"gbk 样本.csv": ""}, {})
    path = Path("data/raw/gbk 样本.csv")
    path.write_bytes(table(*ROWS, header=HEADER.format("案件号")).encode("gbk"))
    with pytest.raises(DataError, match=r"样本.csv can't be read as UTF-8: .*expected the right `encoding`") as error:
        read_labelled(path, layout=LAYOUT)
    pasted = re.findall("`(.*?)`", str(error.value))[-1]
    arguments = shlex.split(pasted)
    assert arguments == ["python", "-m", "stages.prepare", "--check", "data/raw/gbk 样本.csv"]
    monkeypatch.setattr(sys, "argv", arguments[2:])
    command()
    assert 'encoding: "gb18030"' in capsys.readouterr().out
    with pytest.raises(DataError, match="can't be read as UTF-8: its header has other bytes.*iconv -f gbk"):
        read_dialogues(path, PREPARE)


def test_hints_about_a_missing_column_and_a_missing_file_are_quoted(tmp_path):
    path = write(tmp_path / "two words.csv", table(*ROWS, header=HEADER.format("x")))
    with pytest.raises(DataError, match=r"begins with the columns .*--check '.*/two words.csv'"):
        read_labelled(path)
    path.rename(tmp_path / "gone.csv")
    write(tmp_path / "two words.csv.dvc", "")
    with pytest.raises(DataError, match=r"dvc checkout '.*/two words.csv.dvc'` or `dvc pull '.*/two words.csv.dvc'`"):
        read_labelled(path)


def test_check_says_what_the_file_is(project, capsys):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("openpyxl")
    content = table(*ROWS, header=HEADER.format("案件号"))
    project({"a.csv": content, "b.csv": "", "old.csv": ""}, {})
    Path("data/raw/b.csv").write_bytes(content.encode("gbk"))
    columns = list(zip(*(row.split(",") for row in ROWS), strict=True))
    pandas.DataFrame({"text": columns[0], "label": columns[1]}).to_excel("data/raw/c.xlsx", index=False)
    for name, said in (("a.csv", "in UTF-8"), ("b.csv", "in gb18030"), ("c.xlsx", "an Excel workbook")):
        check(Path("data/raw", name), 0.01)
        assert capsys.readouterr().out.startswith(f"check: data/raw/{name}: {said}\n")
    Path("data/raw/old.csv").write_bytes(b"\xd0\xcf\x11\xe0 1997")
    with pytest.raises(DataError, match="an old Excel workbook"):
        check(Path("data/raw/old.csv"), 0.01)
    assert capsys.readouterr().out == ""
