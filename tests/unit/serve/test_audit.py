"""The audit log: rotation, retention, and that a text can be forgotten while the server writes."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from stages.errors import UserError
from stages.serve import audit
from stages.serve.audit import AuditLog
from stages.serve.fingerprint import fingerprint
from stages.serve.forget import forget

START = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    time = {"now": START}
    monkeypatch.setattr(audit, "now", lambda: time["now"])
    return time


def lines_of(folder) -> list[dict]:
    return [json.loads(line) for file in sorted(folder.glob("audit*.jsonl")) for line in file.open(encoding="utf-8")]


def test_files_stay_below_their_size_and_no_line_is_lost(tmp_path, clock):
    log = AuditLog(tmp_path, "text", max_bytes=1000, days=90)
    for number in range(100):
        clock["now"] += timedelta(seconds=1)
        log.write([(f"text {number}", {"label": True})])
    assert sorted(line["input"] for line in lines_of(tmp_path)) == sorted(f"text {number}" for number in range(100))
    files = list(tmp_path.glob("audit*.jsonl"))
    assert len(files) > 5
    assert all(file.stat().st_size <= 1000 for file in files)


def test_lines_are_gone_a_day_after_their_retention_at_the_latest(tmp_path, clock):
    log = AuditLog(tmp_path, "hash", max_bytes=10**9, days=3)
    for hour in range(0, 24 * 10, 5):
        clock["now"] = START + timedelta(hours=hour)
        log.write([(f"text {hour}", {})])
        log.tidy()
        oldest = min(datetime.fromisoformat(line["time"]) for line in lines_of(tmp_path))
        assert clock["now"] - oldest <= timedelta(days=3 + 1, hours=5)
    kept = {line["sha256"] for line in lines_of(tmp_path)}
    recent = {fingerprint(f"text {hour}") for hour in range(0, 24 * 10, 5) if hour >= 24 * 10 - 24 * 3}
    assert recent <= kept


def test_a_file_of_others_in_the_folder_is_left_alone(tmp_path, clock):
    other = tmp_path / "audit-notes.jsonl"
    other.write_text("{}\n")
    clock["now"] += timedelta(days=1000)
    AuditLog(tmp_path, "hash", 10**9, 1).tidy()
    assert other.exists()


def test_a_text_is_forgotten_everywhere_and_others_stay_byte_by_byte(tmp_path, clock):
    log = AuditLog(tmp_path / "audit", "text", max_bytes=300, days=90)
    hashed = AuditLog(tmp_path / "audit", "hash", max_bytes=300, days=90)
    for number, text in enumerate(["秘密 文本", "其他", "  秘密 文本\n", "秘密 文本2"]):
        clock["now"] += timedelta(seconds=number)
        log.write([(text, {})])
        hashed.write([(text, {})])
    reviewed = tmp_path / "reviewed.jsonl"
    kept = '{"input":"其他",  "label": true}\nno json\n'
    reviewed.write_text(kept + '{"input": "秘密 文本\\r\\n", "label": false}\n', encoding="utf-8")
    found = forget("秘密 文本\n", tmp_path / "audit", [reviewed, tmp_path / "missing.jsonl"])
    assert sum(found.values()) == 5
    assert reviewed.read_text(encoding="utf-8") == kept
    left = lines_of(tmp_path / "audit")
    assert len(left) == 4
    assert {line["sha256"] for line in left} == {fingerprint("其他"), fingerprint("秘密 文本2")}


def test_nothing_is_lost_when_a_text_is_forgotten_while_others_are_written(tmp_path):
    log = AuditLog(tmp_path, "text", max_bytes=4000, days=90)

    def write(thread: int) -> None:
        for number in range(60):
            log.write([(f"{thread} {number}", {}), ("secret", {})])

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        forget("secret", tmp_path, [])
    forget("secret", tmp_path, [])
    expected = sorted(f"{thread} {number}" for thread in range(3) for number in range(60))
    assert sorted(line["input"] for line in lines_of(tmp_path)) == expected


def test_a_torn_last_line_does_not_swallow_the_next(tmp_path):
    (tmp_path / "audit.jsonl").write_bytes(b'{"time": "2026')
    AuditLog(tmp_path, "text", 10**9, 90).write([("next", {})])
    files = sorted(tmp_path.glob("audit*.jsonl"))
    assert json.loads(files[-1].read_text().splitlines()[-1])["input"] == "next"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    audit.append(path, b"whole\n")
    real, calls = audit.os.write, []

    def half(handle, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(handle, data[:3])

    monkeypatch.setattr(audit.os, "write", half)
    with pytest.raises(OSError, match="No space"):
        audit.append(path, b"second line\n")
    assert path.read_bytes() == b"whole\n"


def test_a_compressed_file_is_refused_before_anything_changes(tmp_path):
    AuditLog(tmp_path, "text", 10**9, 90).write([("a", {})])
    packed = tmp_path / "queue.jsonl.gz"
    packed.write_bytes(b"\x1f\x8b....")
    with pytest.raises(UserError, match="unpack it"):
        forget("a", tmp_path, [packed])
    assert len(lines_of(tmp_path)) == 1
