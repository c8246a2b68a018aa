"""The systems that are compared: the model by its score or its written answer, and those that stages scored before."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from peft import PeftModel

from stages.evaluate.choices import System, Valid, choose_on_valid
from stages.evaluate.generate import generate_verdicts
from stages.log_odds import read_log_odds
from stages.metrics import Calibration, decision_metrics, probability_metrics, score_metrics
from stages.model.scoring import label_scores, require_finite
from stages.params import Evaluate
from stages.text.example import Example
from stages.text.prompt import Prompt


@dataclass(frozen=True)
class Predictions:
    """The output of one system on a set, with rows in order.

    y_score: float of shape (n_rows,), the calibrated probability of fraud. A written answer is 1 or 0, and NaN if it
    could not be read. threshold: a text is called fraud when its y_score is at or above it; of shape (n_rows,) where
    rows have thresholds of their own, as out of fold. log_odds: float of shape
    (n_rows,), the log-odds of fraud as scored, which rank the texts; None for written answers, which don't rank them.
    seconds: duration of the scoring, None if it was done elsewhere. truncated: how many texts were cut, None if
    unknown. system: what was chosen on valid; None takes the choices as given, as if they had no noise. parts: the
    predictions whose calibrated log-odds a combination adds up.
    """

    y_score: np.ndarray
    threshold: float | np.ndarray
    log_odds: np.ndarray | None = None
    seconds: float | None = None
    truncated: int | None = None
    system: System | None = None
    parts: tuple["Predictions", ...] = ()

    @property
    def y_pred(self) -> np.ndarray:
        """Bool of shape (n_rows,). An answer that could not be read is no alarm."""
        return self.y_score >= self.threshold

    @property
    def written(self) -> bool:
        """Whether these are written answers, without scores."""
        return self.log_odds is None

    @property
    def uncalibrated(self) -> np.ndarray:
        """The probability by the scores themselves, float of shape (n_rows,)."""
        return Calibration().probability(scores_of(self))

    def metrics(self, y_true: np.ndarray) -> dict[str, float]:
        """All metrics. Those named *_before are without the calibration."""
        speed = {"samples_per_second": len(y_true) / self.seconds} if self.seconds else {}
        if self.written:
            return {**self.decisions(y_true), **speed}
        before = {f"{name}_before": value for name, value in probability_metrics(y_true, self.uncalibrated).items()}
        return {**score_metrics(y_true, self.y_score, self.threshold, self.log_odds), **before, **speed}

    def decisions(self, y_true: np.ndarray) -> dict[str, float]:
        """Metrics of the decisions alone, and how many written answers could not be read."""
        unparsable = {"unparsable": int(np.isnan(self.y_score).sum())} if self.written else {}
        return {**decision_metrics(y_true, self.y_pred), **unparsable}

    def rows(self, keep: np.ndarray) -> "Predictions":
        """The predictions for some of the rows. keep: bool of shape (n_rows,), or row numbers."""
        log_odds = None if self.log_odds is None else self.log_odds[keep]
        parts = tuple(part.rows(keep) for part in self.parts)
        threshold = self.threshold[keep] if isinstance(self.threshold, np.ndarray) else self.threshold
        return Predictions(self.y_score[keep], threshold, log_odds, system=self.system, parts=parts)


def scores_of(predictions: Predictions) -> np.ndarray:
    """The log-odds of a system that scores, float of shape (n_rows,)."""
    assert predictions.log_odds is not None, "written answers have no scores"
    return predictions.log_odds


Predictor = Callable[[str, list[Example]], Predictions]  # name of a set, its rows


def scoring_predictor(model: PeftModel, prompt: Prompt, params: Evaluate, system: System) -> Predictor:
    """Scores texts by one forward pass each.

    Args:
        model: base model with adapter.
        prompt: as in training.
        params: the section `evaluate` of params.yaml.
        system: its calibration and threshold.
    """

    def predict(name: str, examples: list[Example]) -> Predictions:
        start = time.perf_counter()
        scores = label_scores(model, prompt, [row.input for row in examples], params.max_tokens_per_batch, name)
        seconds = time.perf_counter() - start
        require_finite(scores.log_odds, [f"{name}: {row.source}" for row in examples])
        return scored(system, scores.log_odds, seconds, int(scores.truncated.sum()))

    return predict


def generation_predictor(model: PeftModel, prompt: Prompt, params: Evaluate, adapter: bool) -> Predictor:
    """Lets the model write its answer and parses it. An answer has no score, and so no threshold to choose.

    Args:
        model: base model with adapter.
        prompt: as in training.
        params: the section `evaluate` of params.yaml.
        adapter: whether the adapter is used; False is the base model alone.
    """

    def predict(name: str, examples: list[Example]) -> Predictions:
        start = time.perf_counter()
        texts = [row.input for row in examples]
        if adapter:
            verdicts = generate_verdicts(model, prompt, texts, params.generate_batch_size, params.max_new_tokens)
        else:
            with model.disable_adapter():
                verdicts = generate_verdicts(model, prompt, texts, params.generate_batch_size, params.max_new_tokens)
        y_score = np.array([np.nan if verdict is None else float(verdict) for verdict in verdicts])
        seconds = time.perf_counter() - start
        return Predictions(
            y_score, 0.5, seconds=seconds, truncated=sum(len(ids) > prompt.room for ids in prompt.tokenize(texts))
        )

    return predict


def stored_predictor(folder: Path, valid: Valid) -> Predictor:
    """Baseline, probe or zero-shot, by the log-odds that their stage wrote to `folder` for each set."""

    def read(name: str, rows: int) -> np.ndarray:
        path = folder / f"{name}.csv"
        log_odds = read_log_odds(path, rows)
        require_finite(log_odds, [f"{path}:{line}" for line in range(2, rows + 2)])
        return log_odds

    system = choose_on_valid(valid, read("valid", len(valid.y_true)))
    return lambda name, examples: scored(system, read(name, len(examples)))


def scored(
    system: System, log_odds: np.ndarray, seconds: float | None = None, truncated: int | None = None
) -> Predictions:
    """The predictions that follow from scores.

    Args:
        system: its calibration and threshold.
        log_odds: of fraud, float of shape (n_rows,).
        seconds: duration of the scoring.
        truncated: how many texts were cut.
    """
    probability = system.calibration.probability(log_odds)
    return Predictions(probability, system.threshold, log_odds, seconds, truncated, system)


def combined(system: System, parts: tuple[Predictions, ...]) -> Predictions:
    """The predictions of a combination (`combine_on_valid`) from those of its parts, in the same order."""
    pairs = zip(system.parts, parts, strict=True)
    log_odds = np.sum([each.calibration.log_odds(scores_of(part)) for each, part in pairs], axis=0)
    return replace(scored(system, log_odds), parts=parts)
