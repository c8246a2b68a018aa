"""Reads and writes models/selected: the adapter with all that is needed to score texts as training did."""

import dataclasses
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel

from stages.artifacts import read_json, replacing_folder, write_json
from stages.bands import BandRule, Bands, figures_of_set
from stages.classifier import baseline, probe
from stages.classifier.shift import Reference, write_reference
from stages.classifier.systems import PARTS, add_up
from stages.data.speakers import remove_speakers
from stages.distributed import is_main_process
from stages.log_odds import write_log_odds
from stages.metrics import Calibration, CalibrationMethod, Labels, ThresholdRule, metrics_at_fraction
from stages.model.exactness import choose_layout
from stages.model.fsdp import shard_layers
from stages.model.load import ModelError, load_base, load_tokenizer
from stages.model.lora import load_adapter
from stages.model.provenance import require_same_base, require_whole_base
from stages.model.scoring import SCORING
from stages.params import Method
from stages.paths import BASE_MODEL, BASELINE, PROBE, PROMPT_FILE, SELECTED
from stages.text.prompt import Prompt, build_prompt

RECORD_FILE = "selected.json"
VALID_FILE = "valid.csv"  # the scores of valid that calibration and threshold were chosen on
PART_FILES = {"baseline": (BASELINE, baseline.FILES), "probe": (PROBE, (probe.PROBE_FILE, PROMPT_FILE))}
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


@dataclass(frozen=True)
class TrainedClassifier:
    """The record of a trained classifier.

    Attributes:
        step: the training step of its checkpoint.
        threshold: the calibrated probability from which on a text is called fraud.
        temperature, offset: log-odds are divided by the one, and the other is added, before they become that
            probability. The offset is 0 in records older than 0.4.
        speakers_removed: whether names in front of lines are removed from texts.
        valid: metrics on valid.
        promised: metrics on valid, by choices that did not see a text's unit, as if select.fraud_fraction of the texts
            were fraud.
        select, method, prompt: the sections and the entry of params.yaml that it was made with.
        base: the identity of the base model.
        rendered: the prompt as text, `before` and `after` the user's. None in records older than 0.3.
        scoring, max_tokens_per_batch: how valid was scored, so that other texts are scored alike.
        system: which system classifies texts. threshold, temperature, offset, valid and promised are its own.
        parts: of a combination, slope and offset of each part's calibration.
        bands: with select.bands, the probabilities from which on a text is reviewed (`review`) and blocked (`block`),
            and what they promise on valid (`promised`). Empty without.
    """

    step: int
    threshold: float
    temperature: float
    speakers_removed: bool
    valid: dict[str, float]
    promised: dict[str, float]
    select: dict[str, Any]
    method_name: str
    method: dict[str, Any]
    prompt: dict[str, Any]
    base: dict[str, str]
    dataset_name: str
    rendered: dict[str, str] | None = None
    scoring: int = 1
    max_tokens_per_batch: int = 4096
    offset: float = 0.0
    system: str = "model"
    parts: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    bands: dict[str, Any] = dataclasses.field(default_factory=dict)

    def as_read(self, text: str) -> str:
        """The text as the model was trained to read it."""
        return remove_speakers(text) if self.speakers_removed else text

    def log_odds(self, scores: dict[str, np.ndarray]) -> np.ndarray:
        """The system's log-odds before calibration, shape (n,). scores: log-odds of each of its parts, shape (n,)."""
        if not self.parts:
            return scores[self.system]
        return add_up(scores, {name: Calibration(**part) for name, part in self.parts.items()})

    def probability(self, log_odds: np.ndarray) -> np.ndarray:
        """Calibrated probability of fraud, shape (n,)."""
        return self.calibration.probability(log_odds)

    def at_promised_fraction(self, y_true: Labels, log_odds: np.ndarray) -> dict[str, float]:
        """Metrics of another set at the share of fraud of `promised`, to compare with it."""
        share = self.promised["fraud_fraction"]
        return metrics_at_fraction(y_true, self.probability(log_odds), self.threshold, share, log_odds)

    def bands_at_promised_fraction(self, y_true: Labels, log_odds: np.ndarray) -> dict[str, float]:
        """What the bands do on another set, at the share of fraud of what they promise. Empty without bands."""
        if self.edges is None:
            return {}
        rule = BandRule(self.select["bands"].get("cost"), fraud_fraction=self.bands["promised"]["fraud_fraction"])
        return figures_of_set(np.asarray(y_true, dtype=bool), self.probability(log_odds), self.edges, rule)

    @property
    def edges(self) -> Bands | None:
        """Where the bands begin; None without bands."""
        return Bands(self.bands["review"], self.bands["block"]) if self.bands else None

    def as_dict(self) -> dict[str, Any]:
        """What selected.json holds. Without bands it doesn't name them, as records of earlier versions."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "bands" or value}

    @property
    def calibration(self) -> Calibration:
        return Calibration(1 / self.temperature, self.offset)

    @property
    def threshold_rule(self) -> ThresholdRule:
        return ThresholdRule.from_section(self.select)

    @property
    def calibration_method(self) -> CalibrationMethod:
        return self.select.get("calibration", "temperature")  # the one of records older than 0.4


def write_classifier(
    folder: Path,
    checkpoint: Path,
    selected: TrainedClassifier,
    card: str,
    valid: np.ndarray,
    reference: Reference | None = None,
) -> None:
    """Copies the checkpoint's adapter, and what else the system needs; writes record, model card and scores of valid.

    The adapter is there with any system, because evaluate compares the model with it.

    Args:
        folder: models/selected.
        checkpoint: folder with the adapter's files.
        selected: the record.
        card: text of the model card.
        valid: log-odds of valid by the model, float of shape (n_rows,).
        reference: what other texts are compared with. Without it they are not compared.
    """
    with replacing_folder(folder) as new:
        if not is_main_process():
            return
        for name in ADAPTER_FILES:
            shutil.copyfile(checkpoint / name, new / name)
        for part in set(PARTS[selected.system]) & set(PART_FILES):
            source, names = PART_FILES[part]
            (new / part).mkdir()
            for name in names:
                shutil.copyfile(source / name, new / part / name)
        write_json(new / RECORD_FILE, selected.as_dict())
        write_log_odds(new / VALID_FILE, valid)
        if reference:
            write_reference(new, reference)
        (new / "README.md").write_text(card, encoding="utf-8")


def load_selected(
    folder: Path = SELECTED, base_folder: Path = BASE_MODEL
) -> tuple[PeftModel, Prompt, TrainedClassifier]:
    """Loads the selected model on its base, quantized as in training, with its prompt and record."""
    selected = read_selected(folder)
    require_whole_base(base_folder)
    require_same_base(selected.base, base_folder)
    model, prompt = load_classifier(folder, Method(**selected.method), selected.prompt, selected.rendered, base_folder)
    return model, prompt, selected


def read_selected(folder: Path) -> TrainedClassifier:
    """Reads the record in a folder. Raises ModelError if there is none, or one of a later version."""
    if not (folder / RECORD_FILE).is_file():
        raise ModelError(f"{folder} holds no selected model: run `dvc repro` first")
    raw = read_json(folder / RECORD_FILE)
    unknown = raw.keys() - {field.name for field in dataclasses.fields(TrainedClassifier)}
    if unknown or raw.get("scoring", 1) > SCORING:
        raise ModelError(
            f"{folder / RECORD_FILE} was written by a later version of this project (scoring {raw.get('scoring')}, "
            f"unknown keys: {', '.join(sorted(unknown)) or 'none'}): use that version, or run `dvc repro select`"
        )
    selected = TrainedClassifier(**raw)
    if selected.system not in PARTS:
        raise ModelError(
            f"{folder / RECORD_FILE}: system is {selected.system!r}; expected one of {', '.join(PARTS)}: run "
            "`dvc repro --force --single-item select`"
        )
    numbers = selected.threshold, selected.offset, selected.temperature
    if not (np.isfinite(numbers).all() and selected.temperature > 0):
        raise ModelError(
            f"{folder / RECORD_FILE}: threshold is {selected.threshold}, offset {selected.offset} and temperature "
            f"{selected.temperature}; expected numbers, the temperature above 0: run "
            "`dvc repro --force --single-item select`"
        )
    edges = selected.edges
    if edges and not (np.isfinite((edges.review, edges.block)).all() and edges.review <= edges.block):
        raise ModelError(
            f"{folder / RECORD_FILE}: bands.review is {edges.review} and bands.block {edges.block}; expected numbers, "
            "review at most block: run `dvc repro --force --single-item select`"
        )
    if selected.scoring < SCORING:
        print(
            f"WARNING: the threshold in {folder} was chosen on scores of an earlier arithmetic (version "
            f"{selected.scoring}, now {SCORING}), so labels near it may differ: run `dvc repro select` to choose it "
            "anew",
            file=sys.stderr,
        )
    return selected


def load_classifier(
    adapter: Path, method: Method, prompt: dict[str, Any], rendered: dict[str, str] | None, base_folder: Path
) -> tuple[PeftModel, Prompt]:
    """Loads a trained adapter on its base, with its prompt, as select, evaluate and predict use it.

    Args:
        adapter: folder with the adapter's weights and configuration.
        method: how the base is stored in memory.
        prompt: the section `prompt` of params.yaml that it was trained with.
        rendered: the prompt as text, as training used it. None renders the chat template now.
        base_folder: the base model that it was trained on.
    """
    built = build_prompt(load_tokenizer(base_folder), **prompt, rendered=rendered)
    model = shard_layers(load_adapter(load_base(method, base_folder), adapter), method)
    choose_layout(model, built)
    return model, built
