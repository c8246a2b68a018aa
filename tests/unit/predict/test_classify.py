"""Scores, labels and what they depend on."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.classifier.trained import load_selected
from stages.errors import UserError
from stages.model.lora import merge_unquantized
from stages.model.scoring import label_scores, require_finite, start_scores
from stages.predict.classify import Window, sources, windows_ahead, write_window
from stages.predict.classify import settings as made_with
from stages.predict.output import Stream
from stages.predict.read import parse_row
from stages.predict.source import Source
from tests.conftest import ROOT
from tests.unit.predict.process import SIZE, Started, rows_of


def test_rows_scored_by_other_code_are_not_kept(folder, tmp_path, monkeypatch):
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


def test_the_scores_are_those_of_the_scorer_and_a_label_follows_from_what_is_printed(
    folder, undisturbed, rows, monkeypatch
):
    monkeypatch.chdir(folder)
    model, prompt, selected = load_selected()
    merge_unquantized(model)
    found = [json.loads(line) for line in undisturbed.splitlines()]
    for first in range(0, len(rows), SIZE):
        texts = [json.loads(line)["input"] for line in rows[first : first + SIZE]]
        probability = selected.probability(label_scores(model, prompt, texts, 4096, "").log_odds)
        assert [row["probability"] for row in found[first : first + SIZE]] == probability.tolist()
    assert all(row["label"] == (row["probability"] >= selected.threshold) for row in found)
    assert {row["label"] for row in found} == {True, False}


def test_windows_that_a_gpu_has_before_it_are_written_in_order(
    folder, predict, file, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr("stages.predict.classify.windows_ahead", lambda *_: 2)
    out = tmp_path / "o.jsonl"
    predict("--file", file, "--out", out)
    assert out.read_bytes() == undisturbed


def test_windows_started_before_one_that_fails_are_kept(folder, predict, file, undisturbed, tmp_path, monkeypatch):
    calls: list[int] = []

    def start(*arguments):
        calls.append(len(calls))
        if len(calls) == 3:
            raise UserError("a text of 96 tokens does not fit in the GPU's memory")
        return start_scores(*arguments)

    out = tmp_path / "o.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("stages.predict.classify.windows_ahead", lambda *_: 1)
        patch.setattr("stages.classifier.scorer.start_scores", start)
        started = Started(folder, "--file", file, "--out", out)
        assert started.wait() == 1
    assert f"does not fit in the GPU's memory. {2 * SIZE} scored rows are kept in" in started.err
    assert f"resumes after the {2 * SIZE} rows" in predict("--file", file, "--out", out).said
    assert out.read_bytes() == undisturbed


@pytest.mark.parametrize(
    ("total", "explained", "device", "ahead"),
    [(3, False, "cuda", 1), (None, False, "cuda", 0), (3, True, "cuda", 0), (3, False, "cpu", 0)],
)
def test_only_a_gpu_with_a_file_has_a_window_before_it(total, explained, device, ahead, monkeypatch):
    monkeypatch.setattr("stages.predict.classify.pick_device", lambda: torch.device(device))
    assert windows_ahead(total, explained) == ahead


def test_the_pages_python_scores_as_predict_does(folder, predict, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/use.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(folder)
    scope: dict = {}
    exec(code, scope)
    file, out = tmp_path / "new.jsonl", tmp_path / "classified.jsonl"
    file.write_text(json.dumps({"input": scope["texts"][0]}), encoding="utf-8")
    predict("--file", file, "--out", out)
    row = json.loads(out.read_text(encoding="utf-8"))
    assert (row["probability"], row["label"]) == (scope["probability"][0], scope["fraud"][0])


def test_two_probabilities_beside_the_threshold_get_different_labels(tmp_path):
    written = os.memfd_create("rows")
    window = Window("0", [parse_row(b'{"input": "x"}')] * 2, [1, 2])
    write_window(Stream(written, "x"), window, np.array([0.49999996, 0.50000004]), 0.5, 0, {})
    below, above = map(json.loads, os.pread(written, 1000, 0).splitlines())
    assert (below["label"], above["label"]) == (False, True)
    assert below["probability"] < 0.5 < above["probability"]


def test_a_score_that_is_no_number_is_an_error():
    lines = sources(Source(Path("new.jsonl")), Window("0", [], [3, 4]), 2)
    with pytest.raises(UserError, match="new.jsonl, line 4: the model's score is nan; expected a finite number"):
        require_finite(np.array([0.5, np.nan]), lines)
    require_finite(np.array([0.5, -700.0]), lines)


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
