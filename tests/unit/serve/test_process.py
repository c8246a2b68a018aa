"""The server as a process: signals, its command line, forgetting, and malformed requests."""

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.malformed import attack, bad
from benchmarks.server import ServerProcess
from stages.errors import UserError
from stages.serve.__main__ import listen, main, read_token
from stages.serve.settings import Settings


@pytest.fixture(scope="module")
def server(served, tmp_path_factory):
    """A server that keeps texts, for several tests. `files` are its options."""
    folder = tmp_path_factory.mktemp("files")
    files = ["--audit-folder", folder / "audit", "--verdicts", folder / "reviewed.jsonl", "--audit", "text"]
    with ServerProcess(*files, folder=served) as started:
        started.files = files
        started.kept = folder
        yield started


def command_line(monkeypatch, folder, *arguments: object) -> None:
    """Runs `python -m stages.serve` in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["serve", *map(str, arguments)])
    main()


def test_a_signal_ends_it_when_all_that_it_took_is_answered(start_process):
    server = start_process("--batch-wait", 2)  # texts wait for others when the signal comes
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(server.classify, [f"文本 {number}"]) for number in range(8)]
        deadline = time.monotonic() + 30
        while server.figures()["serve_waiting"] < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        status, said = server.end()
    assert [len(answer.result(10)["results"]) for answer in answers] == [1] * 8
    assert status == 0
    assert "all requests that were taken are answered" in said
    assert "WARNING" not in said


def test_open_to_other_machines_without_a_token_is_warned_of_and_ctrl_c_ends_it(start_process):
    status, said = start_process("--host", "0.0.0.0").end(signal.SIGINT)
    assert status == 0
    assert "WARNING: 0.0.0.0 is open to other machines and no token is set" in said


def test_a_model_that_can_not_be_loaded_ends_it_with_a_sentence(served, tmp_path):
    with pytest.raises(UserError, match="status 1") as ended, ServerProcess("--folder", tmp_path, folder=served):
        pass
    assert "error: " in str(ended.value)
    assert "holds no selected model" in str(ended.value)
    assert "Traceback" not in str(ended.value)


def test_malformed_requests_get_no_500_and_stop_nothing(server):
    statuses = attack(server.port, 250)
    assert statuses.total() == 250
    assert bad(statuses) == []
    assert {"400", "404", "405", "422"} <= statuses.keys()
    assert len(server.classify(["您好"])["results"]) == 1


def test_a_text_is_forgotten_while_the_server_runs(server, served, tmp_path, monkeypatch, capsys):
    server.classify(["秘密", "其他"])
    server.call("/v1/verdicts", {"input": "秘密", "label": True})
    secret = tmp_path / "secret.txt"
    secret.write_text("秘密\n", encoding="utf-8")
    command_line(monkeypatch, served, "--forget", secret, *server.files)
    assert "serve: 2 rows deleted" in capsys.readouterr().out
    server.classify(["之后"])
    kept = (server.kept / "audit/audit.jsonl").read_text(encoding="utf-8") + server.kept.joinpath(
        "reviewed.jsonl"
    ).read_text(encoding="utf-8")
    texts = [json.loads(line)["input"] for line in kept.splitlines()]
    assert "秘密" not in texts
    assert texts.count("其他") == texts.count("之后") == 1


def test_a_port_in_use_is_said_so(server):
    with pytest.raises(UserError, match=r"can't listen on 127.0.0.1, port \d+: .*choose another"):
        listen(Settings(port=server.port))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--token-file", "weak"], "has 5 characters; expected 16 or more"),
        (["--token-file", "none"], "No such file"),
        (["--queue", "none.jsonl"], "there is no such file"),
        (["--queue", "table.csv"], "table.csv: its first row is no JSON object with the keys input and probability"),
        (["--queue", "other.jsonl", "--forget", "blank"], "no JSON object with the keys input and probability"),
        (["--forget", "blank"], "the file is blank"),
        (["--forget", "none"], "expected a file with one text"),
    ],
)
def test_what_can_not_work_is_said_in_one_sentence(tmp_path, monkeypatch, arguments, message):
    (tmp_path / "weak").write_text("short")
    (tmp_path / "blank").write_text(" \n")
    (tmp_path / "table.csv").write_text("input,probability\na,0.5\n")
    (tmp_path / "other.jsonl").write_text('{"text": "a", "probability": 0.5}\n')
    with pytest.raises(UserError, match=message):
        command_line(monkeypatch, tmp_path, *arguments)


def test_a_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("a" * 32 + "\n")
    assert read_token(None) is None
    monkeypatch.setenv("SERVE_TOKEN", "b" * 32)
    assert (read_token(None), read_token(file)) == ("b" * 32, "a" * 32)
