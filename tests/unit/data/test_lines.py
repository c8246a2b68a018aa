"""The one reader of inputs: files, pipes and standard input give the same rows; what is no text is refused by name."""

import bz2
import gzip
import io
import json
import lzma
import os
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from stages.data.lines import DataError, read_lines
from stages.prepare.read import limit_rejected, read_labelled, together
from tests.conftest import ROOT

TEXT = "".join(json.dumps({"input": f"第{n}句", "label": n % 2}, ensure_ascii=False) + "\n" for n in range(20))
ROWS = list(enumerate(TEXT.encode().splitlines(), 1))
PRINT_ROWS = (
    "import sys; from pathlib import Path; from stages.data.lines import read_lines\n"
    "for number, line in read_lines(Path(sys.argv[1])): print(number, line.decode())"
)
WRAPPED = {
    "plain": TEXT.encode(),
    "byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "crlf": TEXT.replace("\n", "\r\n").encode(),
    "gzip": gzip.compress(TEXT.encode()),
    "two gzip members": gzip.compress(TEXT[:300].encode()) + gzip.compress(TEXT[300:].encode()),
}


def rows_of_process(path: str, pieces: list[bytes], seconds: float, blocking: bool = True) -> list[tuple[int, bytes]]:
    """What a process reads of a path, its standard input a pipe that gets a piece every so many seconds."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, blocking)
    command = [sys.executable, "-c", PRINT_ROWS, path]
    process = subprocess.Popen(command, cwd=ROOT, stdin=read_end, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(read_end)
    with os.fdopen(write_end, "wb", buffering=0) as pipe:
        for piece in pieces:
            pipe.write(piece)
            time.sleep(seconds)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    found = (line.split(b" ", 1) for line in printed.splitlines())
    return [(int(number), line) for number, line in found]


@pytest.mark.parametrize("path", ["/dev/stdin", "-"])
@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_every_row_of_a_fast_pipe_is_read(path, content):
    assert rows_of_process(path, [content], 0) == ROWS


@pytest.mark.parametrize("path", ["/dev/stdin", "-"])
@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_every_row_of_a_slow_pipe_is_read(path, content):
    """The first bytes come one by one, so that none of them is a row and none tells the kind of file."""
    pieces = [content[n : n + 1] for n in range(4)] + [content[4:200], content[200:201], content[201:]]
    assert rows_of_process(path, pieces, 0.15) == ROWS


@pytest.mark.parametrize("content", [WRAPPED["plain"], WRAPPED["gzip"]], ids=["plain", "gzip"])
def test_a_pipe_that_does_not_block_is_waited_for(content):
    pieces = [content[:1], content[1:40], content[40:41], content[41:]]
    assert rows_of_process("-", pieces, 0.3, blocking=False) == ROWS


def test_every_row_of_a_substituted_process_is_read(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(WRAPPED["plain"])
    command = f'"{sys.executable}" -c "$0" <(cat {tmp_path}/x.jsonl)'
    done = subprocess.run(["bash", "-c", command, PRINT_ROWS], cwd=ROOT, capture_output=True, timeout=120)
    assert len(done.stdout.splitlines()) == 20, done.stderr.decode()


def test_a_row_is_given_before_the_next_one_is_written(tmp_path):
    fifo = tmp_path / "rows"
    os.mkfifo(fifo)
    given = threading.Event()

    def write():
        with fifo.open("wb", buffering=0) as pipe:
            pipe.write(b"first row\n")
            given.wait(60)
            pipe.write(b"second row\n")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    rows = read_lines(fifo)
    assert next(rows) == (1, b"first row")
    given.set()
    assert list(rows) == [(2, b"second row")]
    writer.join(60)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, packed):
    def peak(count: int) -> int:
        content = b"".join(b'{"input": "%d"}\n' % n for n in range(count))
        file = tmp_path / "x.jsonl"
        file.write_bytes(gzip.compress(content, 1) if packed else content)
        del content
        tracemalloc.start()
        assert sum(1 for _ in read_lines(file)) == count
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(10)
    assert peak(100_000) < 1.1 * peak(20_000)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", TEXT)
    return file.getvalue()


def database() -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table texts (input text)")
        return connection.serialize()


NO_TEXT = {
    "UTF-16 with a byte order mark": (TEXT.encode("utf-16"), "text in UTF-16 or UTF-32; .*iconv -f utf-16 -t utf-8"),
    "UTF-16 big end first": (b"\xfe\xff" + TEXT.encode("utf-16-be"), "text in UTF-16"),
    "UTF-16 without one": (TEXT.encode("utf-16-le"), "text in UTF-16"),
    "UTF-32": (TEXT.encode("utf-32"), "text in UTF-16 or UTF-32"),
    "UTF-16 in gzip": (gzip.compress(TEXT.encode("utf-16")), "text in UTF-16"),
    "xlsx": (zipped(), "a zip archive or an Excel workbook .*export the sheet as CSV in UTF-8"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), "an old Excel workbook"),
    "parquet": (b"PAR1" + bytes(50) + b"PAR1", "a Parquet file; .*to_json"),
    "sqlite": (database(), "an SQLite database"),
    "bzip2": (bz2.compress(TEXT.encode()), "a bzip2 file; .*unpack it first"),
    "xz": (lzma.compress(TEXT.encode()), "an xz file"),
    "gzip twice": (gzip.compress(gzip.compress(TEXT.encode())), "gzip within gzip"),
}


@pytest.mark.parametrize(("content", "message"), NO_TEXT.values(), ids=NO_TEXT)
def test_a_file_that_is_no_text_is_refused_with_its_kind(tmp_path, content, message):
    file = tmp_path / "x.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"x.jsonl is {message}"):
        list(read_lines(file))


def test_standard_input_has_its_name_in_errors():
    with pytest.raises(AssertionError, match="DataError: standard input is a zip archive"):
        rows_of_process("-", [zipped()], 0)
    with pytest.raises(AssertionError, match="DataError: standard input is a damaged gzip file"):
        rows_of_process("-", [WRAPPED["gzip"][:-9]], 0)


def test_a_missing_file_that_dvc_tracks_is_to_be_checked_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl.dvc").write_text("outs: []\n")
    with pytest.raises(DataError, match=r"x.jsonl is no file that can be read .*run `dvc checkout x.jsonl.dvc`"):
        list(read_lines(Path("x.jsonl")))
    with pytest.raises(DataError, match=r"y.jsonl is no file that can be read .*: put one there, or name another$"):
        list(read_lines(Path("y.jsonl")))


def test_a_file_that_an_experiments_copy_lacks_is_to_be_added(tmp_path, monkeypatch):
    copy = tmp_path / ".dvc/tmp/exps/tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(
        DataError, match=r"without the files that git ignores. Run `dvc add data/raw/x.jsonl` and.*--copy-paths"
    ):
        list(read_lines(Path("data/raw/x.jsonl")))


def test_lines_that_end_in_carriage_returns_alone_are_refused(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(TEXT.replace("\n", "\r").encode())
    rows = read_labelled(file)
    assert (len(rows.examples), len(rows.rejected)) == (0, 1)
    with pytest.raises(DataError, match=r"none of the 1 rows of .*x.jsonl can be used(.|\n)*bare carriage return"):
        limit_rejected(rows, 1.0)


def test_files_that_were_joined_with_their_byte_order_marks_keep_every_row(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(WRAPPED["byte order mark"] * 2)
    rows = read_labelled(file)
    assert not rows.rejected
    assert len(rows.examples) == 40


REFUSED = {
    "labels alone": (b'{"input": "a", "label": 7}\n', "label is 7; expected true or false, 1 or 0", "table"),
    "CSV": (b"input,label\na,1\n", "ends in .csv, .tsv or .txt is read as a table", "rename"),
    "array": (b'[{"input": "a", "label": 1}]\n', "ends in .json: rename it", "table"),
    "GBK": ('{"input": "转账", "label": 1}\n'.encode("gbk"), "no UTF-8 at byte 13(.|\n)*iconv -f gbk", "table"),
}


@pytest.mark.parametrize(("content", "said", "unsaid"), REFUSED.values(), ids=REFUSED)
def test_the_error_of_a_file_without_a_good_row_names_the_fault_and_no_other(tmp_path, content, said, unsaid):
    file = tmp_path / "x.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"none of the \d rows of .*x.jsonl(.|\n)*x.jsonl:1: (.|\n)*{said}") as error:
        limit_rejected(read_labelled(file), 1.0)
    assert unsaid not in str(error.value)


def test_a_file_without_a_good_row_is_an_error_however_large_the_others(tmp_path):
    (tmp_path / "good.jsonl").write_text(TEXT * 100, encoding="utf-8")
    (tmp_path / "bad.jsonl").write_text("input,label\n", encoding="utf-8")
    rows = together(read_labelled(tmp_path / f"{name}.jsonl") for name in ("good", "bad"))
    assert rows.total == 2001
    with pytest.raises(DataError, match="none of the 1 rows of .*bad.jsonl"):
        limit_rejected(rows, 0.01)
