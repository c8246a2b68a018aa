"""Writes the model card in models/selected. It is prose: no later stage reads it."""

import json

from stages.classifier.trained import TrainedClassifier
from stages.text.prompt import ANSWER_PREFIX, LABEL_WORDS, LOST


def model_card(selected: TrainedClassifier) -> str:
    base, promised, side = selected.base, selected.promised, selected.prompt.get("truncation_side", "right")
    return f"""---
library_name: peft
base_model: {base["id"]}
license: other
---

# Fraud or not: an adapter for {base["id"]}

Classifies a text as fraud or not. The prompt below ends with `{ANSWER_PREFIX}`. The next token is the answer,
`{LABEL_WORDS[True]}` or `{LABEL_WORDS[False]}`. Their log-odds, divided by the temperature {selected.temperature:.4f}
(fitted on valid), give the probability of fraud. From {selected.threshold:.4f} on a text is called fraud.

| | |
|---|---|
| base model | {base["id"]}, revision {base["revision"]}, licence: {base["license"]} (it binds this adapter's use too) |
| weights (sha256) | {base["sha256"]} |
| loaded as | {selected.method_name}: {json.dumps(selected.method, ensure_ascii=False, sort_keys=True)} |
| instruction | {selected.prompt["instruction"]} |
| names of speakers in front of lines | {"removed first" if selected.speakers_removed else "kept"} |
| texts are cut at | {selected.prompt["max_length"]} tokens with the prompt: a longer one loses its {LOST[side]} |
| data set | {selected.dataset_name} |
| checkpoint | step {selected.step}, by {selected.select["metric"]} on valid |
| share of fraud that the threshold is for | {promised["fraud_fraction"]:.1%} |
| precision, recall on valid at that share | {promised["precision"]:.3f}, {promised["recall"]:.3f} |
| average precision on valid at that share | {promised["average_precision"]:.3f} |

The figures on valid chose the checkpoint and the threshold. metrics/evaluate.json holds the figures on test.
The answer is a score and no proof: let a person decide what follows from it.
"""
