"""Predict from the command line: pipes, devices, links, ends midway, resuming, and rows that come back as written."""

import gzip
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import params
from stages.artifacts import read_json, replacing, write_json
from stages.classifier.trained import TrainedClassifier, load_selected, write_classifier
from stages.command import run
from stages.errors import UserError
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import attach_adapter, merge_unquantized
from stages.model.provenance import read_identity
from stages.model.scoring import SCORING, label_scores, require_finite
from stages.predict.__main__ import main
from stages.predict.classify import Window, sources, write_window
from stages.predict.classify import settings as made_with
from stages.predict.output import PartialFile, Stream
from stages.predict.read import parse_row
from stages.text.prompt import build_prompt
from tests.conftest import METHODS, ROOT

SIZE = 16  # rows of a window in most tests; the child that predicts inherits it
PROMPT = {"instruction": "判断下面的文本是否涉及诈骗。", "max_length": 96, "truncation_side": "right"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, base_folder, sample_texts) -> Path:
    """A project's folder as predict needs it: the tiny base model and a selected adapter that is no copy of it."""
    folder = tmp_path_factory.mktemp("judging")
    shutil.copytree(base_folder, folder / "models/base")
    for name in ("accelerate.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    chosen = params.load(ROOT / "params.yaml")
    model = attach_adapter(load_base(METHODS["lora"], base_folder, torch.device("cpu")), chosen.train)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    model.save_pretrained(folder / "checkpoint")
    prompt = build_prompt(load_tokenizer(base_folder), **PROMPT)
    selected = TrainedClassifier(
        step=1,
        threshold=0.5,
        temperature=1.0,
        speakers_removed=False,
        valid={},
        promised={"precision": 0.5, "recall": 0.5, "average_precision": 0.5, "fraud_fraction": 0.5},
        select={"metric": "f1"},
        method_name="lora",
        method={"dtype": "float32"},
        prompt=PROMPT,
        base=read_identity(base_folder),
        dataset_name="sample",
        rendered=prompt.rendered,
        scoring=SCORING,
    )
    scores = label_scores(model, prompt, sample_texts[:64], 4096, "")
    middle = float(np.median(selected.probability(scores.log_odds)))
    write_classifier(folder / "models/selected", folder / "checkpoint", replace(selected, threshold=middle), "")
    return folder


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr("stages.model.scoring.WINDOW", SIZE)
    monkeypatch.setattr("stages.predict.read.WINDOW", SIZE)
    monkeypatch.setattr("stages.predict.output.WINDOW", SIZE)


class Started:
    """predict in a fork of this process, which has the libraries loaded; its streams and its signals are real.

    Args:
        arguments: of the command line.
        folder: the working directory.
        stdin, stdout: file descriptors; None: nothing to read, and a file that `out` holds at the end.
    """

    def __init__(self, folder: Path, *arguments: object, stdin: int | None = None, stdout: int | None = None):
        self.written, self.errors = (os.memfd_create(name) for name in ("out", "err"))
        self.pid = os.fork()
        if self.pid:
            return
        status = 99
        try:
            os.setsid()
            empty = os.open(os.devnull, os.O_RDONLY)
            os.dup2(empty if stdin is None else stdin, 0)
            os.dup2(self.written if stdout is None else stdout, 1)
            os.dup2(self.errors, 2)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # a pipe that feeds this process ends when all have closed it
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode, closefd=False) for fd, mode in enumerate("rww"))
            os.chdir(folder)
            sys.argv = ["predict", *map(str, arguments)]
            signal.signal(signal.SIGINT, signal.default_int_handler)
            run(main)
            status = 0
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def __del__(self):
        os.close(self.written)
        os.close(self.errors)

    @property
    def out(self) -> bytes:
        return os.pread(self.written, 1 << 26, 0)

    @property
    def err(self) -> str:
        return os.pread(self.errors, 1 << 26, 0).decode()

    @property
    def said(self) -> str:
        return self.out.decode() + self.err

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert "Traceback" not in self.err, self.err
        return code


@pytest.fixture
def predict(folder) -> Callable[..., Started]:
    """Runs predict to its end, which must be good."""

    def start(*arguments: object, **streams) -> Started:
        started = Started(folder, *arguments, **streams)
        code = started.wait()
        assert code == 0, started.said
        return started

    return start


def rows_of(count: int, first: int = 0) -> list[bytes]:
    texts = (
        f"第{n}句：请{'转账' if n % 3 else '问好'} {n * 7} 元{'，谢谢' * (n % 5)}" for n in range(first, first + count)
    )
    return [json.dumps({"id": n, "input": text}, ensure_ascii=False).encode() + b"\n" for n, text in enumerate(texts)]


@pytest.fixture
def rows() -> list[bytes]:
    """Three windows and a half."""
    return rows_of(3 * SIZE + SIZE // 2)


@pytest.fixture
def file(tmp_path, rows) -> Path:
    (tmp_path / "new.jsonl").write_bytes(b"".join(rows))
    return tmp_path / "new.jsonl"


@pytest.fixture
def judged(predict, file, tmp_path) -> bytes:
    """What an undisturbed run makes of the file."""
    predict("--file", file, "--out", tmp_path / "undisturbed.jsonl")
    return (tmp_path / "undisturbed.jsonl").read_bytes()


def fed(pieces: Iterable[bytes], pause: float = 0) -> int:
    """The end of a pipe from which the pieces can be read, one after the other."""
    reading, writing = os.pipe2(os.O_CLOEXEC)

    def feed() -> None:
        with open(writing, "wb", buffering=0) as pipe:
            for piece in pieces:
                pipe.write(piece)
                time.sleep(pause)

    threading.Thread(target=feed, daemon=True).start()
    return reading


def wait_until(happened: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def windows_kept(target: Path) -> int:
    """How many windows a run that has not ended says that it has kept."""
    log = target.with_name(f".{target.name}.partial.log")
    return max(0, log.read_bytes().count(b"\n") - 1) if log.exists() else 0


def beside(path: Path) -> set[str]:
    return {other.name for other in path.parent.iterdir() if other.name.startswith(f".{path.name}.")}


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_a_slow_pipe_loses_no_row(predict, judged, rows, tmp_path, name):
    out = tmp_path / "o.jsonl"
    predict("--file", name, "--out", out, stdin=fed(rows, 0.01))
    assert out.read_bytes() == judged


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_pieces_of_any_size_come_through_a_pipe_plain_or_packed(predict, tmp_path, piece, packed):
    whole = b"\xef\xbb\xbf" + b"".join(rows_of(9))
    whole = gzip.compress(whole) if packed else whole
    pieces = (whole[at : at + piece] for at in range(0, len(whole), piece))
    started = predict("--file", "-", "--out", "-", stdin=fed(pieces))
    assert [json.loads(line)["id"] for line in started.out.splitlines()] == list(range(9))


def test_a_named_pipe_is_read_and_written_and_stays_one(predict, folder, judged, rows, tmp_path):
    reading, writing = tmp_path / "in.fifo", tmp_path / "out.fifo"
    for pipe in (reading, writing):
        os.mkfifo(pipe)
    started = Started(folder, "--file", reading, "--out", writing)
    feeder = threading.Thread(target=lambda: reading.write_bytes(b"".join(rows)), daemon=True)
    feeder.start()
    assert writing.read_bytes() == judged
    assert started.wait() == 0
    assert all(stat.S_ISFIFO(pipe.stat().st_mode) for pipe in (reading, writing))
    assert not beside(writing)


def test_standard_output_holds_rows_alone_and_what_is_said_goes_to_standard_error(predict, judged, file):
    started = predict("--file", file, "--out", "-")
    assert started.out == judged
    assert "called fraud, in standard output" in started.err


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_file_that_the_shell_appends_to_is_appended_to(predict, judged, file, tmp_path, name):
    out = tmp_path / "all.jsonl"
    out.write_bytes(b"before\n")
    handle = os.open(out, os.O_WRONLY | os.O_APPEND)
    inode = out.stat().st_ino
    predict("--file", file, "--out", name, stdout=handle)
    assert out.read_bytes() == b"before\n" + judged
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


def test_a_reader_that_has_seen_enough_ends_it_quietly(folder, file):
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


def test_a_full_device_is_told_in_a_sentence(folder, file):
    started = Started(folder, "--file", file, "--out", "/dev/full")
    assert started.wait() == 1
    assert started.err.splitlines()[-1].startswith("error: /dev/full could not be written: ")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_full_disk_keeps_what_was_scored(folder, predict, judged, file, tmp_path):
    out = tmp_path / "o.jsonl"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(judged) // 2, unlimited[1]))
    try:
        started = Started(folder, "--file", file, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert started.wait() == 1
    message = started.err.splitlines()[-1]
    assert re.match(rf"error: {out} could not be written: .*File too large.* Make room", message)
    assert f"{SIZE} scored rows are kept in" in message
    assert f"resumes after the {SIZE} rows" in predict("--file", file, "--out", out).said
    assert out.read_bytes() == judged


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(predict, judged, file, tmp_path, exists):
    target, link = tmp_path / "there/target.jsonl", tmp_path / "link.jsonl"
    target.parent.mkdir()
    if exists:
        target.write_bytes(b"old")
        target.chmod(0o640)
    link.symlink_to("there/target.jsonl")
    predict("--file", file, "--out", link)
    assert link.is_symlink()
    assert target.read_bytes() == judged
    assert stat.S_IMODE(target.stat().st_mode) == (0o640 if exists else 0o666 & ~umask())
    assert not beside(target) | beside(link)


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_a_file_that_is_mounted_by_itself_keeps_its_place(tmp_path, monkeypatch):
    target = tmp_path / "o.jsonl"
    target.write_bytes(b"something longer that was there before")
    out = PartialFile(target)
    out.resume({})
    monkeypatch.setattr(os, "replace", busy)
    window = Window("0", [parse_row(b'{"input": "x"}')], [1])
    write_window(out, window, np.array([0.5]), 0.5, 0)
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
def test_an_output_that_can_not_be_written_is_told_before_the_model_is_loaded(tmp_path, file, out):
    """There is no model here: that would be the next error."""
    (tmp_path / "params.yaml").touch()
    (tmp_path / "a-file").write_bytes(b"")
    started = Started(tmp_path, "--file", file, "--out", out)
    assert started.wait() == 1
    assert started.err.startswith(f"error: --out {out} ")
    assert not list(tmp_path.glob("*partial*"))


def test_a_run_that_fails_before_it_scores_leaves_what_there_was(tmp_path, file):
    (tmp_path / "params.yaml").touch()
    (tmp_path / "o.jsonl").write_bytes(b"old")
    started = Started(tmp_path, "--file", file, "--out", tmp_path / "o.jsonl")
    assert started.wait() == 1
    assert (tmp_path / "o.jsonl").read_bytes() == b"old"
    assert not beside(tmp_path / "o.jsonl")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ended_midway_it_resumes_and_ends_with_the_same_file(folder, predict, judged, rows, file, tmp_path, number):
    out = tmp_path / "o.jsonl"
    out.write_bytes(b"old")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    started = Started(folder, "--file", "-", "--out", out, stdin=reading)
    os.close(reading)
    os.write(writing, b"".join(rows[: 2 * SIZE + 3]))
    wait_until(lambda: windows_kept(out) == 2)
    started.signal(number)
    assert started.wait() == (-number if number == signal.SIGKILL else 128 + number)
    os.close(writing)
    if number != signal.SIGKILL:
        assert f"ended by signal {number.value}. {2 * SIZE} scored rows are kept in {out.parent}/.o.jsonl.partial" in (
            started.err
        )
    assert out.read_bytes() == b"old"
    again = predict("--file", file, "--out", out)
    assert f"resumes after the {2 * SIZE} rows that an earlier run scored" in again.said
    assert f"predict: {len(rows)} texts, {judged.count(b': true')} called fraud" in again.said
    assert out.read_bytes() == judged
    assert not beside(out)


def stop_at(folder: Path, out: Path, rows: list[bytes], windows: int, *arguments: object) -> None:
    """Leaves a run that ended after so many windows."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    started = Started(folder, "--file", "-", "--out", out, *arguments, stdin=reading)
    os.close(reading)
    os.write(writing, b"".join(rows[: windows * SIZE]))
    wait_until(lambda: windows_kept(out) == windows)
    started.signal(signal.SIGKILL)
    started.wait()
    os.close(writing)


def test_kept_rows_that_are_all_there_are_not_scored_again(folder, predict, tmp_path):
    rows = rows_of(2 * SIZE)
    out = tmp_path / "o.jsonl"
    stop_at(folder, out, rows, 2)
    kept = (tmp_path / ".o.jsonl.partial").read_bytes()
    predict("--file", "-", "--out", out, stdin=fed(rows))
    assert out.read_bytes() == kept
    assert kept.count(b"\n") == len(rows)


@pytest.mark.parametrize("changed", ["first row", "row of the second window", "fewer rows", "one window"])
def test_of_another_input_only_the_windows_that_are_the_same_are_kept(folder, predict, rows, tmp_path, changed):
    out, plain, file = tmp_path / "o.jsonl", tmp_path / "plain.jsonl", tmp_path / "other.jsonl"
    stop_at(folder, out, rows, 3)
    at = {"first row": 0, "row of the second window": SIZE + 2}.get(changed)
    other = list(rows)
    if at is not None:
        other[at] = b'{"input": "another"}\n'
    other = other[: {"fewer rows": SIZE + 5, "one window": SIZE}.get(changed)]
    file.write_bytes(b"".join(other))
    predict("--file", file, "--out", plain)
    started = predict("--file", file, "--out", out)
    assert out.read_bytes() == plain.read_bytes()
    assert ("the input is not that of the earlier run" in started.said) == (changed != "one window")
    assert ("resumes after the 16 rows" in started.said) == (changed in ("row of the second window", "fewer rows"))


def test_what_is_scored_after_a_window_that_changed_is_kept_too(folder, predict, rows, file, judged, tmp_path):
    out = tmp_path / "o.jsonl"
    others = rows[:SIZE] + rows_of(2 * SIZE, 100)
    stop_at(folder, out, others, 3)
    stopped = Started(folder, "--file", "-", "--out", out, stdin=fed([*rows[: 3 * SIZE], b"no row\n"]))
    assert stopped.wait() == 1
    assert "48 scored rows are kept" in stopped.said
    assert "resumes after the 48 rows" in predict("--file", file, "--out", out).said
    assert out.read_bytes() == judged


@pytest.mark.parametrize("changed", ["--max-tokens-per-batch", "selected model"])
def test_rows_of_other_settings_or_of_another_model_are_not_kept(folder, predict, file, rows, tmp_path, changed):
    out, plain = tmp_path / "o.jsonl", tmp_path / "plain.jsonl"
    record = folder / "models/selected/selected.json"
    before = record.read_bytes()
    stop_at(folder, out, rows, 1)
    options = ("--max-tokens-per-batch", 512) if changed.startswith("--") else ()
    try:
        if not options:
            write_json(record, read_json(record) | {"threshold": 0.999999})
        started = predict("--file", file, "--out", out, *options)
        predict("--file", file, "--out", plain, *options)
    finally:
        record.write_bytes(before)
    assert f"was scored with a different {changed}: all rows are scored anew" in started.said
    assert out.read_bytes() == plain.read_bytes()


def test_the_code_that_a_probability_comes_from_is_a_setting(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    package = Path(shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__")))
    monkeypatch.setattr("stages.code.ROOT", tmp_path)
    monkeypatch.setattr("stages.predict.classify.ROOT", tmp_path)
    before = made_with(4096)
    for name in ("metrics.py", "model/scoring.py", "text/prompt.py", "predict/read.py"):
        with (package / name).open("a") as file:
            file.write("# changed")
        after = made_with(4096)
        assert {key for key in before if before[key] != after[key]} == {"code"}
        before = after
    (package / "evaluate/compare.py").write_text("# changed")
    (package / "command.py").write_text("# changed")
    assert made_with(4096) == before


@pytest.mark.parametrize("damage", ["rows cut", "rows changed", "log cut", "log changed", "no log", "no rows"])
def test_kept_rows_that_were_damaged_are_scored_anew(folder, predict, judged, file, rows, tmp_path, damage):
    out = tmp_path / "o.jsonl"
    stop_at(folder, out, rows, 3)
    partial, log = tmp_path / ".o.jsonl.partial", tmp_path / ".o.jsonl.partial.log"
    where = partial if "rows" in damage else log
    content = where.read_bytes()
    if damage.startswith("no"):
        where.unlink()
    elif damage.endswith("cut"):
        where.write_bytes(content[: len(content) * 2 // 3])
    else:
        where.write_bytes(content[:-90] + b"7" + content[-89:])
    predict("--file", file, "--out", out)
    assert out.read_bytes() == judged


def test_two_at_once_do_not_mix_their_rows(folder, file, rows, tmp_path):
    out = tmp_path / "o.jsonl"
    reading, writing = os.pipe2(os.O_CLOEXEC)
    first = Started(folder, "--file", "-", "--out", out, stdin=reading)
    os.close(reading)
    os.write(writing, b"".join(rows[:SIZE]))
    wait_until(lambda: windows_kept(out) == 1)
    second = Started(folder, "--file", file, "--out", out)
    assert second.wait() == 1
    assert "another process is writing" in second.err
    os.close(writing)
    assert first.wait() == 0
    assert out.read_bytes().count(b"\n") == SIZE


def test_a_bad_row_of_a_pipe_ends_it_and_mended_it_resumes(folder, predict, judged, file, rows, tmp_path):
    out = tmp_path / "o.jsonl"
    bad = [*rows[: SIZE + 3], b'{"input": 7}\n', *rows[SIZE + 3 :]]
    started = Started(folder, "--file", "-", "--out", out, stdin=fed(bad))
    assert started.wait() == 1
    message = started.err.splitlines()[-1]
    assert message.startswith(f"error: standard input, line {SIZE + 4}: input is 7; expected a text")
    assert f"{SIZE} scored rows are kept" in message
    assert f"resumes after the {SIZE} rows" in predict("--file", file, "--out", out).said
    assert out.read_bytes() == judged


def test_a_file_with_bad_rows_is_refused_before_anything_is_scored(tmp_path, rows):
    """There is no model here: that would be the next error."""
    (tmp_path / "params.yaml").touch()
    bad = [b'{"input": ""}\n'] * 12
    (tmp_path / "new.jsonl").write_bytes(b"".join([*rows, *bad]))
    started = Started(tmp_path, "--file", tmp_path / "new.jsonl", "--out", tmp_path / "o.jsonl")
    assert started.wait() == 1
    assert started.err.startswith(f"error: 12 of {len(rows) + 12} rows hold no text to judge:\n")
    assert started.err.count("new.jsonl:") == 10


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_input_without_rows_is_an_error(folder, tmp_path, content):
    (tmp_path / "new.jsonl").write_bytes(content)
    for file, stream in ((tmp_path / "new.jsonl", {}), ("-", {"stdin": fed([content])})):
        started = Started(folder, "--file", file, "--out", tmp_path / "o.jsonl", **stream)
        assert started.wait() == 1
        assert "is empty; expected JSON Lines with the key input" in started.err
        assert not (tmp_path / "o.jsonl").exists()
        assert not beside(tmp_path / "o.jsonl")


def test_the_scores_are_those_of_the_scorer_and_a_label_follows_from_what_is_printed(folder, judged, rows, monkeypatch):
    monkeypatch.chdir(folder)
    model, prompt, selected = load_selected()
    merge_unquantized(model)
    found = [json.loads(line) for line in judged.splitlines()]
    for first in range(0, len(rows), SIZE):
        texts = [json.loads(line)["input"] for line in rows[first : first + SIZE]]
        probability = selected.probability(label_scores(model, prompt, texts, 4096, "").log_odds)
        assert [row["probability"] for row in found[first : first + SIZE]] == probability.tolist()
    assert all(row["label"] == (row["probability"] >= selected.threshold) for row in found)
    assert {row["label"] for row in found} == {True, False}


def test_two_probabilities_beside_the_threshold_are_told_apart(tmp_path):
    written = os.memfd_create("rows")
    window = Window("0", [parse_row(b'{"input": "x"}')] * 2, [1, 2])
    write_window(Stream(written, "x"), window, np.array([0.49999996, 0.50000004]), 0.5, 0)
    below, above = map(json.loads, os.pread(written, 1000, 0).splitlines())
    assert (below["label"], above["label"]) == (False, True)
    assert below["probability"] < 0.5 < above["probability"]


def test_a_score_that_is_no_number_is_no_verdict():
    lines = sources(Path("new.jsonl"), Window("0", [], [3, 4]), 2)
    with pytest.raises(UserError, match="new.jsonl, line 4: the model's score is nan; expected a number"):
        require_finite(np.array([0.5, np.nan]), lines)
    require_finite(np.array([0.5, -700.0]), lines)


def test_a_file_that_loses_rows_while_it_is_read_is_no_result(folder, file, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("stages.predict.__main__.count_rows", lambda path: len(rows) + 1)  # as it was a moment ago
    started = Started(folder, "--file", file, "--out", tmp_path / "o.jsonl")
    assert started.wait() == 1
    assert f"held {len(rows) + 1} rows, and {len(rows)} when they were scored" in started.err
    assert not (tmp_path / "o.jsonl").exists()


def test_texts_that_were_cut_are_counted(predict, tmp_path):
    file, out = tmp_path / "new.jsonl", tmp_path / "o.jsonl"
    long = json.dumps({"input": "请转账" * 200}).encode() + b"\n"
    file.write_bytes(b"".join([*rows_of(SIZE - 1), long, long, long]))
    warning = (
        f"WARNING: 3 of {SIZE + 2} texts of {file} ({3 / (SIZE + 2):.1%}) are longer than prompt.max_length allows"
    )
    assert warning in predict("--file", file, "--out", out).said
    file.write_bytes(b"".join(rows_of(3)))
    assert "WARNING" not in predict("--file", file, "--out", out).said


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
def test_what_a_row_holds_comes_back_as_it_was_written(row, expected):
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


@pytest.mark.parametrize("what", ["device", "pipe"])
def test_no_writer_of_the_project_replaces_a_device_or_a_pipe(tmp_path, what):
    path = tmp_path / "x.json"
    os.mkfifo(path)
    with pytest.raises(UserError, match="expected a file"), replacing(Path("/dev/full") if what == "device" else path):
        pass
    assert path.is_fifo()


def environment(**changes: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"} | changes


def test_a_terminal_that_is_not_utf_8_ends_nothing(folder, tmp_path):
    """The command line itself, with rows through a pipe and a name in Chinese."""
    out = tmp_path / "结果.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "stages.predict", "--file", "-", "--out", str(out)],
        cwd=folder,
        env=environment(PYTHONIOENCODING="ascii"),
        input=b"".join(rows_of(3)),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"\\u7ed3\\u679c.jsonl" in done.stdout
    assert out.read_bytes().count(b"\n") == 3


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, or none")
def test_two_processes_share_the_rows_of_one_pipe(folder, predict, tmp_path):
    rows = rows_of(2100)  # for two processes a whole window, which is a real one there, and a part
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    predict("--file", "-", "--out", one, stdin=fed(rows))
    done = subprocess.run(
        [sys.executable, "-m", "stages.predict", "--file", "-", "--out", str(two)],
        cwd=folder,
        env=environment(NPROC="2"),
        input=b"".join(rows),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    first, second = ([json.loads(line) for line in out.read_bytes().splitlines()] for out in (one, two))
    assert [row["id"] for row in second] == list(range(len(rows)))
    scores = [[row["probability"] for row in judged] for judged in (first, second)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-6)


PEAK = """
import resource, subprocess, sys
count = int(sys.argv[1])
command = [sys.executable, "-m", "stages.predict", "--file", "-", "--out", sys.argv[2]]
predict = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr)
try:
    with predict.stdin as pipe:
        for n in range(count):
            pipe.write(f'{{"input": "第{n}句：请转账", "id": {n}}}\\n'.encode())
except BrokenPipeError:
    pass
status = predict.wait()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status != 0)
"""


@pytest.mark.faults
def test_memory_does_not_grow_with_the_rows_and_one_that_is_killed_ends_with_the_same_file(folder, tmp_path):
    """100,000 rows from a pipe, twice; takes minutes."""

    def start(count: int, out: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", PEAK, str(count), str(out)]
        return subprocess.Popen(command, cwd=folder, env=environment(OMP_NUM_THREADS="1"), stdout=subprocess.PIPE)

    peaks = {}
    for count in (10_000, 100_000):
        out = tmp_path / f"{count}.jsonl"
        started = start(count, out)
        peaks[count] = int(started.communicate()[0])
        assert started.returncode == 0
        with out.open("rb") as file:
            assert [json.loads(line)["id"] for line in file] == list(range(count))
    print(f"peak resident memory, KB: {peaks}")
    assert peaks[100_000] < 1.1 * peaks[10_000], peaks

    again = tmp_path / "again.jsonl"
    started = start(100_000, again)
    wait_until(lambda: windows_kept(again) >= 24, 600)
    for child in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    started.communicate()
    assert started.returncode != 0
    assert 24 <= windows_kept(again) < 48
    assert not again.exists()
    started = start(100_000, again)
    started.communicate()
    assert started.returncode == 0
    assert again.read_bytes() == (tmp_path / "100000.jsonl").read_bytes()
