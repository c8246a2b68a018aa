"""Writes the model card in models/selected. It is prose: no later stage reads it."""

import json

from stages.classifier.trained import TrainedClassifier
from stages.text.prompt import ANSWER_PREFIX, LABEL_WORDS, LOST


def model_card(selected: TrainedClassifier) -> str:
    base, promised, side = selected.base, selected.promised, selected.prompt.get("truncation_side", "right")
    whose = "Their log-odds" if selected.system == "model" else "The log-odds of the system in use (below)"
    last = selected.select.get("checkpoint") == "last"
    checkpoint = "the last one" if last else f"the best by {selected.select['metric']} on valid"
    return f"""---
library_name: peft
base_model: {base["id"]}
license: other
---

# Fraud or not: an adapter for {base["id"]}

Classifies a text as fraud or not. The prompt below ends with `{ANSWER_PREFIX}`. The next token is the answer,
`{LABEL_WORDS[True]}` or `{LABEL_WORDS[False]}`. {whose}, divided by {selected.temperature:.4f}, plus
{selected.offset:.4f} (both fitted on valid), are the log-odds of fraud. From a probability of
{selected.threshold:.4f} on a text is called fraud.

| | |
|---|---|
| base model | {base["id"]}, revision {base["revision"]}, licence: {base["license"]} (it binds this adapter's use too) |
| weights (sha256) | {base["sha256"]} |
| loaded as | {selected.method_name}: {json.dumps(selected.method, ensure_ascii=False, sort_keys=True)} |
| instruction | {selected.prompt["instruction"]} |
| names of speakers in front of lines | {"removed first" if selected.speakers_removed else "kept"} |
| texts are cut at | {selected.prompt["max_length"]} tokens with the prompt: a longer one loses its {LOST[side]} |
| data set | {selected.dataset_name} |
| system in use | {selected.system}{sum_of(selected)} |
| checkpoint | step {selected.step}, {checkpoint} |
| share of fraud that the threshold is for | {promised["fraud_fraction"]:.1%} |
| precision, recall on valid at that share | {bounded(promised, "precision")}, {bounded(promised, "recall")} |
| average precision on valid at that share | {promised["average_precision"]:.3f} |
{rows_of_bands(selected)}
Precision and recall on valid are of thresholds that were chosen without the texts they judge. Brackets hold lower
bounds (95 %). metrics/evaluate.json holds the figures on test.
The answer is a score and no proof: let a person decide what follows from it.
"""


def sum_of(selected: TrainedClassifier) -> str:
    """What a combination adds up, and how."""
    lines = (f"{part['slope']:.4f} × {name} {part['offset']:+.4f}" for name, part in selected.parts.items())
    return f": the log-odds are {' + '.join(lines)}, and are then calibrated" if selected.parts else ""


def rows_of_bands(selected: TrainedClassifier) -> str:
    """The bands and what they promise; nothing without bands."""
    if selected.edges is None:
        return ""
    promised = selected.bands["promised"]
    precision = bounded(promised, "precision") if "precision" in promised else "nothing is blocked"
    return f"""| reviewed, blocked | from a probability of {selected.edges.review:.4f}, {selected.edges.block:.4f} on |
| reviews per 1,000 texts, at most | {promised["reviews_per_1000"]:.1f} [{promised["reviews_per_1000_high"]:.1f}] |
| precision of what is blocked | {precision} |
| share of fraud that passes, at most | {promised["missed"]:.3f} [{promised["missed_high"]:.3f}] |
"""


def bounded(promised: dict[str, float], name: str) -> str:
    """A promised metric with its lower bound."""
    return f"{promised[name]:.3f} [{promised[f'{name}_low']:.3f}]"
