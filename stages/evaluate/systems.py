"""The language model as a classifier: by the score of its next token, or by the answer that it writes."""

import time
from dataclasses import dataclass, field

import numpy as np
from peft import PeftModel

from stages.evaluate.generate import generate_verdicts
from stages.metrics import choose_threshold, decision_metrics, score_metrics
from stages.model.score import label_scores
from stages.model.selected import Selected
from stages.params import Evaluate
from stages.text.example import Example
from stages.text.prompt import Prompt


@dataclass(frozen=True)
class System:
    """One classifier's output on test, rows in order.

    y_score: float of shape (n,), the probability of fraud; of written answers 1 or 0, NaN where none could be read.
    ranked: whether scores order the texts; written answers don't.
    """

    y_score: np.ndarray
    threshold: float
    seconds: float
    ranked: bool = True
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def y_pred(self) -> np.ndarray:
        """Bool of shape (n,); an answer that could not be read is no alarm."""
        return self.y_score >= self.threshold

    def metrics(self, y_true: list[bool]) -> dict[str, float]:
        """Metrics over the rows with a score; how many had none stands in `counts`."""
        readable = ~np.isnan(self.y_score)
        labels, scores = np.asarray(y_true)[readable], self.y_score[readable]
        if self.ranked:
            metrics = score_metrics(labels, scores, self.threshold)
        else:
            metrics = decision_metrics(labels, scores >= self.threshold)
        return {**metrics, **self.counts, "samples_per_second": len(y_true) / self.seconds}


def score_with(
    model: PeftModel,
    prompt: Prompt,
    selected: Selected,
    valid: list[Example],
    test: list[Example],
    params: Evaluate,
    threshold: float | None = None,
) -> System:
    """One forward pass a text. Without a threshold, valid is scored too and the model's own rule chooses one."""
    if threshold is None:
        scores = label_scores(
            model, prompt, [row.input for row in valid], params.max_tokens_per_batch, "valid, zero-shot"
        )
        threshold = choose_threshold([row.label for row in valid], scores.probability, selected.threshold_rule)
    start = time.perf_counter()
    scores = label_scores(model, prompt, [row.input for row in test], params.max_tokens_per_batch, "test")
    return System(scores.probability, threshold, time.perf_counter() - start)


def generate_with(
    model: PeftModel,
    prompt: Prompt,
    selected: Selected,
    valid: list[Example],
    test: list[Example],
    params: Evaluate,
    threshold: float | None = None,
) -> System:
    """The answer written out and parsed; there is no score and so no threshold to choose."""
    start = time.perf_counter()
    verdicts = generate_verdicts(
        model, prompt, [row.input for row in test], params.generate_batch_size, params.max_new_tokens
    )
    y_score = np.array([np.nan if verdict is None else float(verdict) for verdict in verdicts])
    counts = {"unparsable": int(np.isnan(y_score).sum())}
    return System(y_score, 0.5, time.perf_counter() - start, ranked=False, counts=counts)
