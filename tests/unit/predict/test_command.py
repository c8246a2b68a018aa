"""The command line itself, in processes of its own: other terminals, two processes, many rows."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unit.predict.process import Started, environment, fed, rows_of, wait_until, windows_kept


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is not refused")
def test_the_profile_speed_is_refused_without_a_gpu(folder, file, tmp_path):
    started = Started(folder, "--file", file, "--out", tmp_path / "o.jsonl", "--profile", "speed")
    assert started.wait() == 1
    assert "--profile speed needs a GPU, and found none: leave it out" in started.said
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.slow
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
    scores = [[row["probability"] for row in found] for found in (first, second)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, or none")
def test_two_processes_share_the_sentences_of_a_table(folder, predict, tmp_path):
    file, one, two = (tmp_path / name for name in ("a.csv", "one.jsonl", "two.jsonl"))
    file.write_text("input\n" + "".join(f"第{n}句。请转账 {n} 元！谢谢\n" for n in range(9)), encoding="utf-8")
    predict("--file", file, "--out", one, "--explain")
    done = subprocess.run(
        [sys.executable, "-m", "stages.predict", "--file", str(file), "--out", str(two), "--explain"],
        cwd=folder,
        env=environment(NPROC="2"),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    first, second = ([json.loads(line) for line in out.read_bytes().splitlines()] for out in (one, two))
    effects = [[each["effect"] for row in found for each in row["sentences"]] for found in (first, second)]
    assert len(effects[0]) == 27
    assert effects[1] == pytest.approx(effects[0], abs=1e-5)


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
