"""A run that ended midway resumes, and keeps only rows that it would write again."""

import os
import signal

import pytest

from stages.artifacts import read_json, write_json
from tests.unit.predict.process import SIZE, Started, beside, fed, rows_of, stop_at, wait_until, windows_kept


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_resumes_and_writes_the_same_file(
    folder, predict, undisturbed, rows, file, tmp_path, number
):
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
    assert f"predict: {len(rows)} texts, {undisturbed.count(b': true')} called fraud" in again.said
    assert out.read_bytes() == undisturbed
    assert not beside(out)


def test_rows_that_are_all_kept_are_not_scored_again(folder, predict, tmp_path):
    rows = rows_of(2 * SIZE)
    out = tmp_path / "o.jsonl"
    stop_at(folder, out, rows, 2)
    kept = (tmp_path / ".o.jsonl.partial").read_bytes()
    predict("--file", "-", "--out", out, stdin=fed(rows))
    assert out.read_bytes() == kept
    assert kept.count(b"\n") == len(rows)


@pytest.mark.parametrize("changed", ["first row", "row of the second window", "fewer rows", "one window"])
def test_only_unchanged_windows_of_another_input_are_kept(folder, predict, rows, tmp_path, changed):
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


def test_windows_after_a_changed_window_are_kept_too(folder, predict, rows, file, undisturbed, tmp_path):
    out = tmp_path / "o.jsonl"
    others = rows[:SIZE] + rows_of(2 * SIZE, 100)
    stop_at(folder, out, others, 3)
    stopped = Started(folder, "--file", "-", "--out", out, stdin=fed([*rows[: 3 * SIZE], b"no row\n"]))
    assert stopped.wait() == 1
    assert "48 scored rows are kept" in stopped.said
    assert "resumes after the 48 rows" in predict("--file", file, "--out", out).said
    assert out.read_bytes() == undisturbed


def test_rows_scored_by_another_model_are_not_kept(folder, predict, file, rows, tmp_path):
    out, plain = tmp_path / "o.jsonl", tmp_path / "plain.jsonl"
    record = folder / "models/selected/selected.json"
    before = record.read_bytes()
    stop_at(folder, out, rows, 1)
    try:
        write_json(record, read_json(record) | {"threshold": 0.999999})
        started = predict("--file", file, "--out", out)
        predict("--file", file, "--out", plain)
    finally:
        record.write_bytes(before)
    assert "was scored with a different selected model: all rows are scored anew" in started.said
    assert out.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize(
    ("option", "before"),
    [
        (("--max-tokens-per-batch", 512), "--max-tokens-per-batch 4096"),
        (("--explain",), "--explain False"),
    ],
)
def test_rows_stay_where_another_option_is_tried(folder, predict, undisturbed, file, rows, tmp_path, option, before):
    out = tmp_path / "o.jsonl"
    stop_at(folder, out, rows, 2)
    kept = {name: (tmp_path / name).read_bytes() for name in beside(out)}
    tried = Started(folder, "--file", file, "--out", out, *option)
    assert tried.wait() == 1
    assert f"holds {2 * SIZE} rows that were scored with {before}: use that again to resume them" in tried.said
    assert {name: (tmp_path / name).read_bytes() for name in beside(out)} == kept
    assert f"resumes after the {2 * SIZE} rows" in predict("--file", file, "--out", out).said
    assert out.read_bytes() == undisturbed


@pytest.mark.parametrize("damage", ["rows cut", "rows changed", "log cut", "log changed", "no log", "no rows"])
def test_damaged_kept_rows_are_scored_again(folder, predict, undisturbed, file, rows, tmp_path, damage):
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
    assert out.read_bytes() == undisturbed


def test_two_runs_at_once_do_not_mix_their_rows(folder, file, rows, tmp_path):
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
