"""The language model as a classifier: by the score of its next token, or by the answer that it writes."""

import time
from dataclasses import dataclass

import numpy as np
from peft import PeftModel

from stages import UserError
from stages.evaluate.generate import generate_verdicts
from stages.metrics import choose_threshold, decision_metrics, score_metrics
from stages.model.score import label_scores
from stages.params import Evaluate, Select
from stages.text.example import Example
from stages.text.prompt import Prompt

NO_ALARM = 2.0  # a threshold that no probability reaches


@dataclass(frozen=True)
class System:
    """One classifier's output on test, rows in order.

    y_score: float of shape (n,), the probability of fraud; of written answers 1 or 0, NaN where none could be read.
    written: whether these are written answers, which don't order the texts.
    """

    y_score: np.ndarray
    threshold: float
    seconds: float
    written: bool = False

    @property
    def y_pred(self) -> np.ndarray:
        """Bool of shape (n,); an answer that could not be read is no alarm."""
        return self.y_score >= self.threshold

    def metrics(self, y_true: list[bool]) -> dict[str, float]:
        """Metrics over all rows; for written answers also how many could not be read."""
        speed = {"samples_per_second": len(y_true) / self.seconds}
        if self.written:
            return {**decision_metrics(y_true, self.y_pred), "unparsable": int(np.isnan(self.y_score).sum()), **speed}
        return {**score_metrics(y_true, self.y_score, self.threshold), **speed}


def by_score(model: PeftModel, prompt: Prompt, test: list[Example], params: Evaluate, threshold: float) -> System:
    """One forward pass a text."""
    start = time.perf_counter()
    scores = label_scores(model, prompt, [row.input for row in test], params.max_tokens_per_batch, "test")
    return System(scores.probability, threshold, time.perf_counter() - start)


def zero_shot_by_score(
    model: PeftModel, prompt: Prompt, valid: list[Example], test: list[Example], params: Evaluate, rule: Select
) -> System:
    """The base model with the same prompt; its threshold is chosen on valid as the model's was."""
    with model.disable_adapter():
        texts = [row.input for row in valid]
        scores = label_scores(model, prompt, texts, params.max_tokens_per_batch, "valid, zero-shot")
        threshold = comparison_threshold([row.label for row in valid], scores.probability, rule)
        return by_score(model, prompt, test, params, threshold)


def by_generation(model: PeftModel, prompt: Prompt, test: list[Example], params: Evaluate) -> System:
    """The answer written out and parsed; it has no score, and so no threshold to choose."""
    start = time.perf_counter()
    texts = [row.input for row in test]
    verdicts = generate_verdicts(model, prompt, texts, params.generate_batch_size, params.max_new_tokens)
    y_score = np.array([np.nan if verdict is None else float(verdict) for verdict in verdicts])
    return System(y_score, 0.5, time.perf_counter() - start, written=True)


def comparison_threshold(y_true: list[bool], y_score: np.ndarray, rule: Select) -> float:
    """The threshold of `rule` for a system to compare with; one that can't keep the rule's promise raises no alarm."""
    try:
        return choose_threshold(y_true, y_score, rule)
    except UserError:
        return NO_ALARM
