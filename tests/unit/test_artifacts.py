import json
import os
import shutil
from pathlib import Path

import pytest

from stages.artifacts import read_csv, replacing, replacing_folder, write_csv, write_json
from stages.errors import UserError
from tests.unit.train.trainers import Killed, kill


def test_json_is_sorted_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "m.json", {"b": 1, "a": {"d": 0.5, "c": "诈骗"}})
    text = (tmp_path / "m.json").read_text(encoding="utf-8")
    assert text == '{\n  "a": {\n    "c": "诈骗",\n    "d": 0.5\n  },\n  "b": 1\n}\n'


@pytest.mark.parametrize("value", [[1, 2], float("nan"), float("inf"), {1, 2}])
def test_what_dvc_or_json_would_lose_is_refused_and_the_old_file_stays(tmp_path, value):
    file = tmp_path / "m.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="m.json: x: y is"):
        write_json(file, {"x": {"y": value}})
    assert json.loads(file.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def break_off(file):
    with replacing(file) as half:
        half.write("half")
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_old_file_and_no_others(tmp_path):
    file = tmp_path / "f.txt"
    file.write_text("whole")
    with pytest.raises(KeyboardInterrupt):
        break_off(file)
    assert file.read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["f.txt"]


def test_csv_keeps_its_columns_and_leaves_gaps_empty(tmp_path):
    write_csv(tmp_path / "f.csv", [{"step": 1, "loss": 0.5, "other": 1}, {"step": 2}], ["step", "loss"])
    assert (tmp_path / "f.csv").read_bytes() == b"step,loss\n1,0.5\n2,\n"
    assert read_csv(tmp_path / "f.csv")[1] == {"step": "2", "loss": ""}


def test_a_row_stays_one_row_whatever_ends_the_lines_of_its_texts(tmp_path):
    texts = ["old\rMac", "Unix\nline", "Windows\r\nline", "\r", 'said "so"\r', "plain", "ends\r\n"]
    write_csv(tmp_path / "f.csv", ({"text": text, "n": n} for n, text in enumerate(texts)), ["text", "n"])
    assert [(row["text"], row["n"]) for row in read_csv(tmp_path / "f.csv")] == [
        (t, str(n)) for n, t in enumerate(texts)
    ]
    assert (tmp_path / "f.csv").read_bytes().startswith(b'text,n\n"old\rMac",0\n')


@pytest.mark.parametrize("what", ["device", "pipe"])
def test_no_writer_of_the_project_replaces_a_device_or_a_pipe(tmp_path, what):
    path = tmp_path / "x.json"
    os.mkfifo(path)
    with pytest.raises(UserError, match="expected a file"), replacing(Path("/dev/full") if what == "device" else path):
        pass
    assert path.is_fifo()


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("x")

    def write(last):
        with replacing_folder(target) as folder:
            (folder / "new").write_text("y")
            last()

    with pytest.raises(Killed):
        write(kill)
    assert [file.name for file in target.iterdir()] == ["old"]
    shutil.copytree(target, tmp_path / ".writing-out")  # of a process that was killed outright
    write(lambda: None)
    assert [file.name for file in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
