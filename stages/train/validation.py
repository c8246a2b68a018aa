"""The scores of `valid` while training: metrics for the log and for early stopping, rows for a checkpoint's file."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import nn

from stages.errors import UserError
from stages.metrics import BEST_F1, choose_threshold, decision_metrics, ranking_metrics
from stages.model.scoring import LabelScores, label_scores
from stages.params import Train
from stages.text.example import Example
from stages.text.prompt import Prompt


class Validation:
    """Scores the validation examples with the project's one scorer; the last scores stay in `scores`."""

    def __init__(self, examples: list[Example], prompt: Prompt, params: Train):
        self.examples, self.prompt, self.max_tokens_per_batch = examples, prompt, params.eval_max_tokens_per_batch
        self.vocabulary = params.loss != "binary"  # whether the loss is over the whole vocabulary
        self.scores: LabelScores | None = None

    def metrics(self, model: nn.Module, step: int) -> dict[str, float]:
        """Loss, the best F1 that a threshold could give, average precision and ROC AUC.

        Raises UserError where a score is not finite; step: the optimizer step that it names.
        """
        texts = [example.input for example in self.examples]
        labels = [example.label for example in self.examples]
        scores = label_scores(model, self.prompt, texts, self.max_tokens_per_batch, "valid", self.vocabulary)
        if not np.isfinite([scores.loss(labels), *scores.log_odds]).all():
            raise UserError(
                f"a score of valid is not a finite number after step {step}: lower train.learning_rate, or set the "
                "method's dtype to float32. Earlier checkpoints are whole"
            )
        self.scores = scores
        threshold = choose_threshold(labels, scores.log_odds, BEST_F1)
        return {
            "loss": scores.loss(labels),
            "f1": decision_metrics(labels, scores.log_odds >= threshold)["f1"],
            **ranking_metrics(labels, scores.log_odds),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Label and log-odds of each example, in their order, as the last call of `metrics` found them."""
        assert self.scores is not None, "metrics() comes first"
        for example, log_odds in zip(self.examples, self.scores.log_odds, strict=True):
            yield {"y_true": int(example.label), "log_odds": repr(float(log_odds))}
