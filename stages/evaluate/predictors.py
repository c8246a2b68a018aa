"""The classifiers that are compared: by the score of the next token, by the answer written out, and by the baseline."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peft import PeftModel

from stages.artifacts import read_csv
from stages.errors import UserError
from stages.evaluate.generate import generate_verdicts
from stages.metrics import (
    ThresholdRule,
    calibrated,
    choose_threshold,
    decision_metrics,
    fit_temperature,
    probability_metrics,
    score_metrics,
)
from stages.model.scoring import label_scores, require_finite
from stages.params import Evaluate
from stages.text.example import Example
from stages.text.prompt import Prompt

NO_ALARM = 2.0  # a threshold that no probability reaches


@dataclass(frozen=True)
class Predictions:
    """One classifier's output on a set, rows in order.

    y_score: float of shape (n,), the calibrated probability of fraud; of written answers 1 or 0, NaN where none could
    be read. log_odds: of fraud, as scored, by which texts are ranked; None for written answers, which don't order them.
    seconds: that scoring took; None where it was done elsewhere. truncated: how many texts were cut; None where it is
    not known.
    """

    y_score: np.ndarray
    threshold: float
    log_odds: np.ndarray | None = None
    seconds: float | None = None
    truncated: int | None = None

    @property
    def y_pred(self) -> np.ndarray:
        """Bool of shape (n,); an answer that could not be read is no alarm."""
        return self.y_score >= self.threshold

    @property
    def written(self) -> bool:
        return self.log_odds is None

    @property
    def uncalibrated(self) -> np.ndarray:
        """The probability at temperature 1."""
        return calibrated(self.log_odds, 1)

    def metrics(self, y_true: np.ndarray) -> dict[str, float]:
        """Metrics over all rows; *_before: without the temperature."""
        speed = {"samples_per_second": len(y_true) / self.seconds} if self.seconds else {}
        if self.written:
            return {**self.decisions(y_true), **speed}
        before = {f"{name}_before": value for name, value in probability_metrics(y_true, self.uncalibrated).items()}
        return {**score_metrics(y_true, self.y_score, self.threshold, self.log_odds), **before, **speed}

    def decisions(self, y_true: np.ndarray) -> dict[str, float]:
        """Metrics of the decisions alone. Of written answers, how many could not be read."""
        unparsable = {"unparsable": int(np.isnan(self.y_score).sum())} if self.written else {}
        return {**decision_metrics(y_true, self.y_pred), **unparsable}

    def rows(self, keep: np.ndarray) -> "Predictions":
        """The same classifier on some of the rows, a mask."""
        return Predictions(self.y_score[keep], self.threshold, None if self.written else self.log_odds[keep])


Predictor = Callable[[str, list[Example]], Predictions]  # name of a set, its rows


def scoring_predictor(
    model: PeftModel, prompt: Prompt, params: Evaluate, temperature: float, threshold: float
) -> Predictor:
    """One forward pass a text."""

    def predict(name: str, examples: list[Example]) -> Predictions:
        start = time.perf_counter()
        scores = label_scores(model, prompt, [row.input for row in examples], params.max_tokens_per_batch, name)
        seconds = time.perf_counter() - start
        require_finite(scores.log_odds, [f"{name}: {row.source}" for row in examples])
        return scored(scores.log_odds, temperature, threshold, seconds, int(scores.truncated.sum()))

    return predict


def zero_shot_predictor(
    model: PeftModel, prompt: Prompt, params: Evaluate, valid: list[Example], rule: ThresholdRule
) -> Predictor:
    """The base model with the same prompt; temperature and threshold are chosen on valid as the model's were."""
    texts = [row.input for row in valid]
    with model.disable_adapter():
        scores = label_scores(model, prompt, texts, params.max_tokens_per_batch, "valid, zero-shot")
    require_finite(scores.log_odds, [f"valid, zero-shot: {row.source}" for row in valid])
    decide = scoring_predictor(model, prompt, params, *on_valid(valid, scores.log_odds, rule))

    def predict(name: str, examples: list[Example]) -> Predictions:
        with model.disable_adapter():
            return decide(f"{name}, zero-shot", examples)

    return predict


def generation_predictor(model: PeftModel, prompt: Prompt, params: Evaluate, adapter: bool) -> Predictor:
    """The answer written out and parsed; it has no score, and so no threshold to choose. adapter: or the base model."""

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


def baseline_predictor(folder: Path, valid: list[Example], rule: ThresholdRule) -> Predictor:
    """The TF-IDF baseline that the prepare stage fitted, by the log-odds that it wrote for each set."""

    def read(name: str) -> np.ndarray:
        return np.array([float(row["log_odds"]) for row in read_csv(folder / f"{name}.csv")])

    temperature, threshold = on_valid(valid, read("valid"), rule)
    return lambda name, examples: scored(read(name), temperature, threshold)


def scored(
    log_odds: np.ndarray,
    temperature: float,
    threshold: float,
    seconds: float | None = None,
    truncated: int | None = None,
) -> Predictions:
    """A system by its scores of a set.

    Args:
        log_odds: of fraud, shape (n,).
        temperature: divides them, for probabilities.
        threshold, seconds, truncated: as in Predictions.
    """
    return Predictions(calibrated(log_odds, temperature), threshold, log_odds, seconds, truncated)


def on_valid(valid: list[Example], log_odds: np.ndarray, rule: ThresholdRule) -> tuple[float, float]:
    """Temperature and threshold of a system to compare with; one that can't keep the rule's promise raises no alarm."""
    y_true = np.array([row.label for row in valid])
    temperature = fit_temperature(y_true, log_odds)
    try:
        return temperature, choose_threshold(y_true, calibrated(log_odds, temperature), rule)
    except UserError:
        return temperature, NO_ALARM
