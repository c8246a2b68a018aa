"""A file of other texts than valid: predict warns once, at the end, on standard error."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from stages.artifacts import read_json
from stages.classifier.shift import describe_valid, write_reference
from stages.predict import output
from stages.text.example import Example
from tests.unit.predict.process import SIZE, Started, rows_of, stop_at

ENGLISH = [json.dumps({"input": f"Your parcel number {n} is waiting"}).encode() + b"\n" for n in range(4 * SIZE)]


@pytest.fixture(scope="module")
def compared(folder, tmp_path_factory) -> Path:
    """The project with a description of valid, which holds Chinese texts with scores around the threshold."""
    project = Path(shutil.copytree(folder, tmp_path_factory.mktemp("compared") / "project"))
    texts = [json.loads(line)["input"] for line in rows_of(200)]
    valid = [Example(text, bool(n % 2), unit=n) for n, text in enumerate(texts)]
    scores = np.linspace(-1, 1, 200)
    write_reference(project / "models/selected", describe_valid(texts, valid, scores, scores > 0, None))
    return project


def warning_of(run: Started) -> list[str]:
    lines = run.err.splitlines()
    (first,) = (n for n, line in enumerate(lines) if "these texts differ from valid" in line)
    return lines[first:]


def test_other_texts_are_warned_of_once_on_standard_error(compared, tmp_path):
    file, out = tmp_path / "new.jsonl", tmp_path / "o.jsonl"
    file.write_bytes(b"".join(ENGLISH))
    run = Started(compared, "--file", file, "--out", out)
    assert run.wait() == 0
    lines = warning_of(run)
    assert lines[0].startswith(f"predict: WARNING: {file}: these texts differ from valid")
    assert {line.split(":")[0].strip() for line in lines[1:-2]} >= {"vocabulary", "script"}
    fraud = out.read_bytes().count(b'"label": true') / len(ENGLISH)
    assert f"  {fraud:.1%} of these texts are called fraud, 50.0% of valid (with 50% fraud)" in lines
    assert "label 100 to 200 of them" in lines[-1]
    assert b"differ from valid" not in run.out


def test_the_rows_are_those_without_a_comparison(compared, folder, tmp_path):
    file = tmp_path / "new.jsonl"
    file.write_bytes(b"".join(ENGLISH))
    for name, project in (("with", compared), ("without", folder)):
        run = Started(project, "--file", file, "--out", tmp_path / name)
        assert run.wait() == 0
        assert ("differ from valid" in run.err) == (name == "with")
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()


def test_a_resumed_run_counts_the_rows_of_the_earlier_one(compared, tmp_path):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "o.jsonl"
    file = tmp_path / "new.jsonl"
    file.write_bytes(b"".join(ENGLISH))
    undisturbed = Started(compared, "--file", file, "--out", whole)
    assert undisturbed.wait() == 0
    stop_at(compared, out, ENGLISH, 3)
    again = Started(compared, "--file", file, "--out", out)
    assert again.wait() == 0
    assert f"resumes after the {3 * SIZE} rows" in again.said
    assert warning_of(again) == warning_of(undisturbed)


def test_few_texts_are_not_compared(compared, tmp_path):
    file = tmp_path / "new.jsonl"
    file.write_bytes(b"".join(ENGLISH[:49]))
    run = Started(compared, "--file", file, "--out", tmp_path / "o.jsonl")
    assert run.wait() == 0
    assert "WARNING" not in run.said


def test_what_is_kept_of_a_window_does_not_grow_with_its_rows(compared):
    edges = [each["edges"] for each in read_json(compared / "models/selected/reference.json")["features"].values()]
    cells = {str(n): [2048] * (2 * len(each) + 1) for n, each in enumerate(edges)}
    record = output.WindowRecord("0" * 64, "0" * 64, 1 << 20, 2048, 2048, 2048, cells)
    assert len(output.line_of(record)) < 4096
