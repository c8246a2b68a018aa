"""Where rows go: pipes, devices, links, files that others hold, and full disks."""

import json
import os
import re
import resource
import signal
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from stages.predict.classify import Window, write_window
from stages.predict.output import PartialFile
from stages.predict.read import parse_row
from tests.unit.predict.process import SIZE, Started, beside, wait_until


def test_a_named_pipe_is_read_and_written_and_stays_one(predict, folder, undisturbed, rows, tmp_path):
    reading, writing = tmp_path / "in.fifo", tmp_path / "out.fifo"
    for pipe in (reading, writing):
        os.mkfifo(pipe)
    started = Started(folder, "--file", reading, "--out", writing)
    feeder = threading.Thread(target=lambda: reading.write_bytes(b"".join(rows)), daemon=True)
    feeder.start()
    assert writing.read_bytes() == undisturbed
    assert started.wait() == 0
    assert all(stat.S_ISFIFO(pipe.stat().st_mode) for pipe in (reading, writing))
    assert not beside(writing)


def test_standard_output_holds_rows_alone_and_what_is_said_goes_to_standard_error(predict, undisturbed, file):
    started = predict("--file", file, "--out", "-")
    assert started.out == undisturbed
    assert "called fraud, in standard output" in started.err


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_file_that_the_shell_appends_to_is_appended_to(predict, undisturbed, file, tmp_path, name):
    out = tmp_path / "all.jsonl"
    out.write_bytes(b"before\n")
    handle = os.open(out, os.O_WRONLY | os.O_APPEND)
    inode = out.stat().st_ino
    predict("--file", file, "--out", name, stdout=handle)
    assert out.read_bytes() == b"before\n" + undisturbed
    assert out.stat().st_ino == inode


def test_rows_go_out_while_others_are_still_to_come(folder, rows):
    reading, writing = os.pipe2(os.O_CLOEXEC)
    started = Started(folder, "--file", "-", "--out", "-", stdin=reading)
    os.close(reading)
    os.write(writing, b"".join(rows[: SIZE + 3]))
    wait_until(lambda: started.out.count(b"\n") == SIZE)
    os.write(writing, b"".join(rows[SIZE + 3 :]))
    os.close(writing)
    assert started.wait() == 0
    assert [json.loads(line)["id"] for line in started.out.splitlines()] == list(range(len(rows)))


def test_a_reader_that_closes_the_pipe_ends_the_run_quietly(folder, file):
    reading, writing = os.pipe2(os.O_CLOEXEC)
    started = Started(folder, "--file", file, "--out", "-", stdout=writing)
    os.close(writing)
    os.close(reading)
    assert started.wait() == 128 + signal.SIGPIPE
    assert "error" not in started.err


def test_a_device_is_written_through(predict, file, tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make a device")
    (tmp_path / "link").symlink_to(device)
    for out in (device, tmp_path / "link"):
        predict("--file", file, "--out", out)
        assert stat.S_ISCHR(device.stat().st_mode)
        assert not beside(out)
    assert (tmp_path / "link").is_symlink()


def test_a_full_device_is_reported_in_a_sentence(folder, file):
    started = Started(folder, "--file", file, "--out", "/dev/full")
    assert started.wait() == 1
    assert started.err.splitlines()[-1].startswith("error: /dev/full could not be written: ")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_full_disk_keeps_what_was_scored(folder, predict, undisturbed, file, tmp_path):
    out = tmp_path / "o.jsonl"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(undisturbed) // 2, unlimited[1]))
    try:
        started = Started(folder, "--file", file, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert started.wait() == 1
    message = started.err.splitlines()[-1]
    assert re.match(rf"error: {out} could not be written: .*File too large.* Make room", message)
    assert f"{SIZE} scored rows are kept in" in message
    assert f"resumes after the {SIZE} rows" in predict("--file", file, "--out", out).said
    assert out.read_bytes() == undisturbed


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(predict, undisturbed, file, tmp_path, exists):
    target, link = tmp_path / "there/target.jsonl", tmp_path / "link.jsonl"
    target.parent.mkdir()
    if exists:
        target.write_bytes(b"old")
        target.chmod(0o640)
    link.symlink_to("there/target.jsonl")
    predict("--file", file, "--out", link)
    assert link.is_symlink()
    assert target.read_bytes() == undisturbed
    assert stat.S_IMODE(target.stat().st_mode) == (0o640 if exists else 0o666 & ~umask())
    assert not beside(target) | beside(link)


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_a_mounted_file_is_overwritten_in_place(tmp_path, monkeypatch):
    target = tmp_path / "o.jsonl"
    target.write_bytes(b"something longer that was there before")
    out = PartialFile(target)
    out.resume({})
    monkeypatch.setattr(os, "replace", busy)
    window = Window("0", [parse_row(b'{"input": "x"}')], [1])
    write_window(out, window, np.array([0.5]), 0.5, 0, {})
    inode = target.stat().st_ino
    out.finish()
    out.close()
    assert target.read_bytes() == b'{"input": "x", "label": true, "probability": 0.5}\n'
    assert target.stat().st_ino == inode
    assert not beside(target)


def busy(source: Path, target: Path) -> None:
    """os.replace as it is for a file that a container mounts."""
    raise OSError(16, "Device or resource busy")


@pytest.mark.parametrize("alias", ["new.jsonl", "link.jsonl", "hard.jsonl", "-"])
def test_the_input_is_not_overwritten(folder, file, alias):
    before = file.read_bytes()
    (file.parent / "link.jsonl").symlink_to(file)
    (file.parent / "hard.jsonl").hardlink_to(file)
    handle = os.open(file, os.O_RDWR)
    stream = {"stdin": handle} if alias == "-" else {}
    started = Started(folder, "--file", alias if stream else file.parent / alias, "--out", file, **stream)
    assert started.wait() == 2
    assert "--out is the file that --file reads" in started.err
    assert file.read_bytes() == before


@pytest.mark.parametrize("out", ["a-file/o.jsonl", ".", "/proc/nowhere/o.jsonl", "/proc/version/o", "n" * 300])
def test_an_output_that_can_not_be_written_is_reported_before_the_model_is_loaded(tmp_path, file, out):
    """There is no model here: that would be the next error."""
    (tmp_path / "params.yaml").touch()
    (tmp_path / "a-file").write_bytes(b"")
    started = Started(tmp_path, "--file", file, "--out", out)
    assert started.wait() == 1
    assert started.err.startswith(f"error: --out {out} ")
    assert not list(tmp_path.glob("*partial*"))


def test_a_run_that_fails_before_it_scores_leaves_the_old_output(tmp_path, file):
    (tmp_path / "params.yaml").touch()
    (tmp_path / "o.jsonl").write_bytes(b"old")
    started = Started(tmp_path, "--file", file, "--out", tmp_path / "o.jsonl")
    assert started.wait() == 1
    assert (tmp_path / "o.jsonl").read_bytes() == b"old"
    assert not beside(tmp_path / "o.jsonl")
