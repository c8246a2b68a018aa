"""The record of the selected model: its prompt, its numbers, earlier and later versions."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.special import expit

from stages.classifier.trained import (
    RECORD_FILE,
    TrainedClassifier,
    load_classifier,
    load_selected,
    read_selected,
    write_classifier,
)
from stages.model.load import ModelError, load_base
from stages.model.lora import attach_adapter
from stages.model.provenance import read_identity
from stages.model.scoring import SCORING
from stages.text.prompt import build_prompt
from tests.conftest import METHODS

CPU = torch.device("cpu")
INSTRUCTION = "判断下面的文本是否涉及诈骗。"


def record(base, prompt, **changes) -> TrainedClassifier:
    return TrainedClassifier(
        **{
            "step": 1, "threshold": 0.5, "temperature": 1.0, "speakers_removed": False, "valid": {},
            "promised": {"fraud_fraction": 0.5, "precision": 0.5, "recall": 0.5, "average_precision": 0.5},
            "select": {"metric": "f1"}, "method_name": "lora", "method": dataclasses.asdict(METHODS["lora"]),
            "prompt": {"instruction": INSTRUCTION, "max_length": 256, "repetitions": 1, "truncation_side": "right"},
            "base": read_identity(base), "dataset_name": "sample", "rendered": prompt.rendered, "scoring": SCORING,
            "max_tokens_per_batch": 4096, "offset": 0.25,
        } | changes
    )  # fmt: skip


def test_a_prompt_with_the_date_is_the_one_of_training_in_every_later_stage(dated_base, tmp_path, train_params):
    from stages.model.load import load_tokenizer

    prompt = build_prompt(load_tokenizer(dated_base), INSTRUCTION, 256)
    assert build_prompt(load_tokenizer(dated_base), INSTRUCTION, 256).prefix != prompt.prefix  # so that this can fail
    model = attach_adapter(load_base(METHODS["lora"], dated_base, CPU), train_params)
    model.save_pretrained(tmp_path / "adapter")
    write_classifier(tmp_path / "selected", tmp_path / "adapter", record(dated_base, prompt), "", np.zeros(1))
    _, loaded, _ = load_selected(tmp_path / "selected", dated_base)
    assert (loaded.prefix, loaded.suffix) == (prompt.prefix, prompt.suffix)
    _, again = load_classifier(
        tmp_path / "adapter",
        METHODS["lora"],
        {"instruction": INSTRUCTION, "max_length": 256},
        prompt.rendered,
        dated_base,
    )
    assert again.prefix == prompt.prefix


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": float("nan")},
        {"offset": float("nan")},
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": float("inf")},
    ],
)
def test_a_record_with_an_unusable_threshold_or_temperature_is_refused(base_folder, prompt, tmp_path, change):
    """Every text would get the same verdict, or the opposite one."""
    values = dataclasses.asdict(record(base_folder, prompt)) | change
    (tmp_path / RECORD_FILE).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ModelError, match="threshold is .*, offset .* and temperature .*; expected numbers"):
        read_selected(tmp_path)


def test_an_earlier_selection_is_recognised_and_a_later_one_refused(base_folder, prompt, tmp_path, capsys):
    values = dataclasses.asdict(record(base_folder, prompt))
    for key in ("rendered", "scoring", "max_tokens_per_batch", "offset"):  # as written before
        del values[key]
    (tmp_path / RECORD_FILE).write_text(json.dumps(values), encoding="utf-8")
    earlier = read_selected(tmp_path)
    assert (earlier.scoring, earlier.offset, earlier.calibration_method) == (1, 0.0, "temperature")
    said = capsys.readouterr().err
    assert "earlier arithmetic" in said
    assert "dvc repro select" in said
    (tmp_path / RECORD_FILE).write_text(json.dumps(values | {"scoring": SCORING}), encoding="utf-8")
    read_selected(tmp_path)
    assert not capsys.readouterr().err
    for later in ({"scoring": SCORING + 1}, {"a_later_key": {}}):
        (tmp_path / RECORD_FILE).write_text(json.dumps(values | later), encoding="utf-8")
        with pytest.raises(ModelError, match="later version"):
            read_selected(tmp_path)


def test_the_probability_is_of_the_log_odds_over_the_temperature_plus_the_offset(base_folder, prompt):
    selected = record(base_folder, prompt, temperature=2.5)
    log_odds = np.linspace(-30, 30, 7)
    assert selected.probability(log_odds) == pytest.approx(expit(log_odds / 2.5 + 0.25), rel=1e-12)


def test_an_earlier_record_keeps_the_rule_that_its_name_had(base_folder, prompt):
    section = {"threshold": "max_f1", "min_precision": 0.9, "cost": {"fp": 1, "fn": 5}, "fraud_fraction": None}
    assert record(base_folder, prompt, select=section).threshold_rule.name == "max_f1_on_valid"
    assert record(base_folder, prompt, select=section | {"calibration": "platt"}).threshold_rule.name == "max_f1"
