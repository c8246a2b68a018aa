"""The selected system as one scorer of texts, for predict and for Python. It loads only what the system needs."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.artifacts import read_json
from stages.classifier.baseline import read_baseline
from stages.classifier.probe import read_probe
from stages.classifier.reader import Reader
from stages.classifier.systems import PARTS
from stages.classifier.trained import TrainedClassifier, load_selected, read_selected
from stages.errors import UserError
from stages.model.fsdp import shard_layers
from stages.model.hidden import text_states, width
from stages.model.load import load_base, load_tokenizer
from stages.model.lora import merge_unquantized
from stages.model.provenance import files_sha256, require_same_base, require_whole_base
from stages.model.scoring import start_scores
from stages.params import Method
from stages.paths import BASE_MODEL, PROMPT_FILE, SELECTED
from stages.text.prompt import Prompt, build_prompt


@dataclass(frozen=True)
class Scores:
    """log_odds: float64 of shape (N,), of a `Scorer` before calibration. truncated: bool (N,), which were cut."""

    log_odds: np.ndarray
    truncated: np.ndarray


Pending = Callable[[], Scores]  # waits for scores that a GPU may still compute
Part = Callable[[Sequence[str], int, str], Pending]  # texts, tokens in a batch, title of the progress bar


@dataclass(frozen=True)
class Scorer:
    """The selected system.

    Attributes:
        selected: its record, which turns log-odds into probabilities and a verdict.
        parts: what scores texts, by name.
        prompt: builds the prompt that cuts long texts; None if a part reads all of them.
    """

    selected: TrainedClassifier
    parts: dict[str, Part]
    prompt: Callable[[], Prompt] | None = None

    @functools.cached_property
    def reader(self) -> Reader | None:
        """Where the system cuts texts; None if it reads all of them."""
        if self.prompt is None:
            return None
        prompt = self.prompt()
        return Reader(
            lambda text: len(prompt.tokenize([self.selected.as_read(text)])[0]), prompt.room, prompt.truncation_side
        )

    def score(self, texts: Sequence[str], max_tokens_per_batch: int | None = None, title: str = "") -> Scores:
        """Scores N texts, which are read as in training. With several processes, all get all scores.

        Args:
            texts: N texts, in the order of their file.
            max_tokens_per_batch: maximum of padded tokens in a batch; None takes the one that the threshold fits.
            title: title of the progress bar; empty for no bar.
        """
        return self.start(texts, max_tokens_per_batch, title)()

    def start(self, texts: Sequence[str], max_tokens_per_batch: int | None = None, title: str = "") -> Pending:
        """Begins what `score` does, and returns a function that waits for the scores."""
        texts = [self.selected.as_read(text) for text in texts]
        budget = max_tokens_per_batch or self.selected.max_tokens_per_batch
        pending = {name: part(texts, budget, title) for name, part in self.parts.items()}

        def read() -> Scores:
            found = {name: wait() for name, wait in pending.items()}
            log_odds = self.selected.log_odds({name: scores.log_odds for name, scores in found.items()})
            return Scores(log_odds, np.any([scores.truncated for scores in found.values()], axis=0))

        return read


def load_scorer(folder: Path = SELECTED, base_folder: Path = BASE_MODEL, fast: bool = False) -> Scorer:
    """Loads the selected system. The base model is loaded only if the system has the model or the probe in it.

    Args:
        folder: models/selected.
        base_folder: models/base.
        fast: whether the model scores with compiled layers and CUDA graphs. Raises UserError where it can't.

    Raises UserError if the folder changes meanwhile: weights of one run and the calibration of another score nothing.
    """
    before, selected = selected_sha256(folder), read_selected(folder)
    loaders: dict[str, Callable[[Path, Path], Part]] = {
        "model": functools.partial(load_model_part, fast=fast),
        "baseline": load_baseline_part,
        "probe": load_probe_part,
    }
    names = PARTS[selected.system]
    prompt = None if "baseline" in names else functools.partial(load_prompt, selected, folder, base_folder)
    parts = {name: loaders[name](folder, base_folder) for name in names}
    if selected_sha256(folder) != before:
        raise UserError(f"{folder} has changed while it was loaded: wait until `dvc repro` has ended, and start again")
    return Scorer(selected, parts, prompt)


def selected_sha256(folder: Path) -> str:
    """Hash of all files of a selected system."""
    return files_sha256(sorted(file for file in folder.rglob("*") if file.is_file()))


def load_prompt(selected: TrainedClassifier, folder: Path, base_folder: Path) -> Prompt:
    """The prompt by which the system's model or probe reads texts."""
    probe = "probe" in PARTS[selected.system]
    rendered = read_json(folder / "probe" / PROMPT_FILE) if probe else selected.rendered
    return build_prompt(load_tokenizer(base_folder), **selected.prompt, rendered=rendered)


def load_model_part(folder: Path, base_folder: Path, fast: bool = False) -> Part:
    model, prompt, _ = load_selected(folder, base_folder)
    merge_unquantized(model)
    if fast:
        from stages.model.fast_scores import speed_up  # stages that score by plain passes don't depend on it

        speed_up(model, prompt)

    def start(texts: Sequence[str], budget: int, title: str) -> Pending:
        wait = start_scores(model, prompt, texts, budget, title)

        def read() -> Scores:
            scores = wait()
            return Scores(scores.log_odds, scores.truncated)

        return read

    return start


def load_baseline_part(folder: Path, base_folder: Path) -> Part:
    baseline = read_baseline(folder / "baseline")
    return lambda texts, budget, title: lambda: Scores(baseline.log_odds(texts), np.zeros(len(texts), dtype=bool))


def load_probe_part(folder: Path, base_folder: Path) -> Part:
    selected = read_selected(folder)
    require_whole_base(base_folder)
    require_same_base(selected.base, base_folder)
    method = Method(**selected.method)
    model = shard_layers(load_base(method, base_folder), method)
    prompt = load_prompt(selected, folder, base_folder)
    probe = read_probe(folder / "probe", width(model))

    def start(texts: Sequence[str], budget: int, title: str) -> Pending:
        found = text_states(model, prompt, texts, [probe.layer], budget, title)
        return lambda: Scores(probe.log_odds(found.states[:, 0]), found.truncated)

    return start
