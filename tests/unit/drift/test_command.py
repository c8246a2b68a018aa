"""The command: what it reads, prints and writes, and its status. A stub scores, by the texts' own first character."""

import gzip
import json
import runpy
import shutil
import sys

import numpy as np
import pytest

from stages.artifacts import write_csv, write_json
from stages.classifier.scorer import Scorer, Scores
from stages.metrics import decision_metrics
from stages.text.example import write_examples
from tests.conftest import ROOT
from tests.unit.drift.made import OTHERS, make, record


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose scores are looked up, with a function that runs the command there and returns its status."""
    (train, _), (valid, scores) = make(150, 1), make(80, 2)
    known = {row.input: float(score) for row, score in zip(valid, scores, strict=True)}
    selected = record()
    selected.valid.update(decision_metrics([row.label for row in valid], scores >= 0))
    for name, rows in (("train", train), ("valid", valid)):
        write_examples(tmp_path / f"data/processed/{name}.jsonl", rows)
    write_json(tmp_path / "models/selected/selected.json", vars(selected))
    write_csv(
        tmp_path / "models/selected/valid.csv", ({"log_odds": repr(float(each))} for each in scores), ["log_odds"]
    )
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)

    def score(texts, budget, title):
        found = Scores(np.array([known.get(text, 0.0) for text in texts]), np.zeros(len(texts), dtype=bool))
        return lambda: found

    monkeypatch.setattr("stages.classifier.scorer.load_scorer", lambda: Scorer(selected, {"model": score}))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["drift", *map(str, arguments)])
        try:
            runpy.run_module("stages.drift", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            return ended.code
        return 0

    run.root, run.known = tmp_path, known
    return run


def write(path, rows, key="input"):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({key: row.input}, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return path


def new_rows(project, seed=5, units=40):
    rows, scores = make(units, seed)
    project.known.update({row.input: float(score) for row, score in zip(rows, scores, strict=True)})
    return rows


def test_like_texts_end_with_status_0(project, capsys):
    assert project("--file", write(project.root / "new.jsonl", new_rows(project))) == 0
    said = capsys.readouterr().out.splitlines()
    assert "new.jsonl: 80 texts, " in said[0]
    assert "no alarm (p " in said[0]
    assert said[-1].startswith("drift: No file of 1 differs")
    found = json.loads((project.root / "runs/drift/drift.json").read_text(encoding="utf-8"))
    (file,) = found["files"].values()
    assert (found["alarm"], file["texts"], file["compared"]) == (False, 80, True)
    assert file["flagged"] == np.mean([project.known[row.input] >= 0 for row in new_rows(project)])
    assert "<html" in (project.root / "runs/drift/drift.html").read_text(encoding="utf-8")


def test_other_texts_end_with_status_1_after_the_files_are_written(project, capsys):
    others, _ = make(40, 6, words=OTHERS)
    assert project("--file", write(project.root / "new.jsonl", others), "--out", project.root / "there") == 1
    assert "ALARM, most by " in capsys.readouterr().out
    assert json.loads((project.root / "there/drift.json").read_text(encoding="utf-8"))["alarm"] is True
    assert (project.root / "there/drift.html").is_file()
    assert not (project.root / "runs").exists()


def test_a_folder_gives_a_line_for_each_file_in_order(project, capsys):
    for day in (2, 1, 3):
        write(project.root / f"days/{day}.jsonl.gz", new_rows(project, day + 10))
    write(project.root / "days/.hidden", [])
    assert project("--folder", project.root / "days") == 0
    said = capsys.readouterr().out.splitlines()
    assert [f"days/{day}.jsonl.gz: " in line for day, line in zip((1, 2, 3), said, strict=False)] == [True] * 3
    assert len(said) == 4


@pytest.mark.parametrize("content", ["", " \n"])
def test_an_empty_day_has_too_few_texts_and_the_others_are_compared(project, capsys, content):
    others, _ = make(40, 6, words=OTHERS)
    write(project.root / "days/1.jsonl", new_rows(project))
    (project.root / "days/2.jsonl").write_text(content)
    (project.root / "days/3.csv").write_text("input\n")
    write(project.root / "days/4.jsonl", others)
    assert project("--folder", project.root / "days") == 1
    said = capsys.readouterr().out.splitlines()
    few = "0 texts: fewer than 50 different texts (0), so nothing can be said"
    assert [line.endswith(few) for line in said] == [False, True, True, False, False]
    assert said[-1].startswith("drift: 1 of 2 files differ")
    values = json.loads((project.root / "runs/drift/drift.json").read_text(encoding="utf-8"))
    first, second, *_ = values["files"].values()
    assert (second["texts"], second["compared"], second["flagged"], first["compared"]) == (0, False, None, True)
    assert "文本太少" in (project.root / "runs/drift/drift.html").read_text(encoding="utf-8")


def test_few_texts_say_that_nothing_can_be_said(project, capsys):
    few = write(project.root / "few.jsonl", new_rows(project, units=10), key="message")
    assert project("--file", few, "--text-column", "message") == 0
    said = capsys.readouterr().out
    assert "fewer than 50 different texts (20), so nothing can be said" in said
    assert "Nothing can be said: no file has 50 different texts." in said


ERRORS = {
    "a bad row": (["--file", "bad.jsonl"], "bad.jsonl:2:"),
    "a missing file": (["--file", "none.jsonl"], "none.jsonl"),
    "a file as folder": (["--folder", "bad.jsonl"], "is no folder"),
    "an empty folder": (["--folder", "empty"], "holds no file"),
    "a file given twice": (["--file", "ok.jsonl", "--file", "ok.jsonl"], "given twice"),
    "standard input": (["--file", "-"], "is a pipe"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_what_is_wrong_and_end_with_status_2(project, capsys, case):
    (project.root / "empty").mkdir()
    write(project.root / "ok.jsonl", new_rows(project))
    (project.root / "bad.jsonl").write_text('{"input": "好"}\n{"text": "好"}\n', encoding="utf-8")
    arguments, named = ERRORS[case]
    assert project(*arguments) == 2  # 1 is an alarm
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert named in said
    assert not (project.root / "runs").exists()


def test_a_fault_of_the_program_is_no_alarm(project, capsys, monkeypatch):
    monkeypatch.setattr("stages.drift.compare.compare_all", lambda *_: 1 / 0)
    assert project("--file", write(project.root / "new.jsonl", new_rows(project))) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_missing_outputs_of_the_stages_are_named(project, capsys):
    file = write(project.root / "new.jsonl", new_rows(project))
    (project.root / "data/processed/train.jsonl").unlink()
    assert project("--file", file) == 2
    said = capsys.readouterr().err
    assert "data/processed/train.jsonl is missing" in said
    assert "dvc repro" in said


def test_another_valid_is_refused(project, capsys):
    file = write(project.root / "new.jsonl", new_rows(project))
    rows, _ = make(80, 99)
    write_examples(project.root / "data/processed/valid.jsonl", rows)
    assert project("--file", file) == 2
    assert "is not the valid that the threshold was chosen on" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--file", "a", "--level", "0"], ["--file", "a", "--level", "nan"]])
def test_a_wrong_command_line_ends_with_status_2(project, arguments):
    assert project(*arguments) == 2
