"""An export holds the bands, and scores with them as predict does; a lossy one has bands of its own."""

import shutil
import sys
from pathlib import Path

import pytest
from scipy.special import expit, logit

from stages.api import load
from stages.artifacts import read_json, write_json
from stages.bands import BANDS
from stages.classifier.trained import read_selected
from stages.export import __main__ as command
from stages.export.record import plain_threshold
from stages.export.score import load as load_program
from stages.text.example import read_examples

BUDGET = 300


@pytest.fixture(scope="module")
def banded(project, tmp_path_factory) -> Path:
    copy = Path(shutil.copytree(project, tmp_path_factory.mktemp("banded") / "project"))
    record = read_json(copy / "models/selected/selected.json")
    record["select"]["bands"] = {"reviews_per_1000": BUDGET}
    centre = float(logit(record["threshold"]))
    record["bands"] = {"review": float(expit(centre - 0.2)), "block": float(expit(centre + 0.2))}
    write_json(copy / "models/selected/selected.json", record)
    return copy


@pytest.mark.parametrize("dtype", ["float32", "nf4"])
def test_the_record_holds_bands_for_both_probabilities(banded, monkeypatch, dtype):
    monkeypatch.chdir(banded)
    monkeypatch.setattr(sys, "argv", ["export", "classifier", "--dtype", dtype, "--out", f"exports/{dtype}"])
    command.main()
    folder, selected = banded / "exports" / dtype, read_selected(banded / "models/selected")
    record = read_json(folder / "export.json")
    for name in ("review", "block"):
        plain = logit(record["bands"][name]) + record["offset"]
        assert plain == pytest.approx(float(logit(record["probability_bands"][name])))
    classifier = load(folder)
    texts = [row.input for row in read_examples(Path("data/processed/valid.jsonl"))]
    bands = classifier.band(texts)
    assert bands == [row["band"] for row in load_program(folder)(texts)]
    assert set(bands) == set(BANDS)
    if dtype == "float32":
        assert record["probability_bands"] == selected.edges.as_dict()
        assert bands == load(banded / "models/selected").band(texts)
    else:  # its own, chosen on valid by the same rule
        assert record["probability_bands"] != selected.edges.as_dict()
        assert bands.count("review") == BUDGET * len(texts) // 1000
        assert record["probability_bands"]["review"] < record["probability_threshold"]


def test_without_bands_the_record_and_the_rows_name_none(classifier_folder):
    assert not [key for key in read_json(classifier_folder / "export.json") if "bands" in key]
    assert load(classifier_folder).bands is None
    assert "band" not in load_program(classifier_folder)(["您好"])[0]


def test_a_threshold_that_no_text_reaches_stays_out_of_reach():
    assert plain_threshold(1.5, -0.4) == 1.5
    assert plain_threshold(0.4, 0.0) == pytest.approx(0.4)
