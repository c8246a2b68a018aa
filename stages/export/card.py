"""The model card of an export, README.md in its folder: how to load it, what it is worth, and its limits."""

from pathlib import Path
from typing import Any

from stages.artifacts import read_json
from stages.classifier.trained import TrainedClassifier
from stages.paths import METRICS
from stages.text.prompt import LOST

LICENSES = {"apache-2.0", "mit", "gemma", "llama3", "llama3.1", "llama3.2"}  # names that the hub knows
LOAD = {
    "classifier": """```python
from transformers import IMPORTS

classify = pipeline("text-classification", FOLDER, TOKENIZERtop_k=None)
for scores in classify(["您好，您的快递到了。"], truncation=True):
    print({each["label"]: each["score"] for each in scores})
```

Keep `truncation=True`: it cuts the text alone, never the prompt, which the tokenizer adds by itself.""",
    "onnx": """```python
import numpy as np
import onnxruntime
from transformers import PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast.from_pretrained(FOLDER)
ids = dict(tokenizer(["您好，您的快递到了。"], truncation=True, return_tensors="np"))
logits = onnxruntime.InferenceSession(FOLDER + "/model.onnx").run(["logits"], ids)[0]
probability = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
```""",
    "merged": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
```

The tokenizer in `scoring` adds the prompt by itself. The one beside it is the base model's.""",
    "adapter": """```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained(FOLDER)  # with the base model's quantization, see score.py
```

It needs the base model with exactly the weights named below. Another release under the same name scores otherwise.
`score.py --base FOLDER` takes them from a folder.""",
    "gguf": """`score.py` scores by llama-cpp-python. The tokenizer in `scoring` adds the prompt by itself. Programs of
llama.cpp generate with this file, and don't add the prompt.""",
}


def export_card(selected: TrainedClassifier, record: dict[str, Any], parity: dict[str, Any]) -> str:
    """The text of the card.

    Args:
        selected: the record of the trained model.
        record: export.json.
        parity: parity.json.
    """
    return f"""{front_matter(record)}

# Fraud or not: {record["kind"]}, {record["weights"]}, of {record["base"]["id"]}

Gives the probability that a text is fraud. A person decides what follows from it.

## Load

{load_text(record)}

`python score.py --file texts.jsonl --out scores.jsonl` scores a file, with the packages below and nothing else.

## Threshold

{threshold_text(record)}

## Same scores as the trained model

{parity_table(parity)}

## Figures

{figures_text(selected)}

## What it reads

{origin_table(record)}

## Limits

- The probability is calibrated on texts like those of valid. On other kinds of texts it, and the threshold, may not
  hold: label 100 to 200 of them and look first.
- Texts of one case are alike, so intervals count cases, not rows. Where a text of test appears in train, the figures
  are too good.
- The licence of the base model is that of this model. Read it before use.
"""


def front_matter(record: dict[str, Any]) -> str:
    """What a hub reads of the card."""
    base = record["base"]
    library, task = {
        "adapter": ("peft", "text-generation"),
        "merged": ("transformers", "text-generation"),
        "gguf": ("gguf", "text-generation"),
    }.get(record["kind"], ("transformers", "text-classification"))
    return f"""---
library_name: {library}
pipeline_tag: {task}
base_model: {base["id"]}
license: {base["license"] if base["license"] in LICENSES else "other"}
language: [zh, en]
tags: [fraud-detection]
---"""


def origin_table(record: dict[str, Any]) -> str:
    """What the artefact was made from, and how it reads a text."""
    base = record["base"]
    return f"""| | |
|---|---|
| base model | {base["id"]}, revision {base["revision"]}, licence: {base["license"]} (it binds this model too) |
| weights of the base (sha256) | {base["sha256"]} |
| trained as | {record["trained_with"]} on the data set {record["dataset"]} |
| names of speakers in front of lines | {"removed by the tokenizer" if record["speakers_removed"] else "kept"} |
| longer texts | lose their {LOST[record["truncation_side"]]} after {record["max_length"]} tokens |
| made with | {", ".join(f"{key} {value}" for key, value in sorted(record["versions"].items()))} |"""


def load_text(record: dict[str, Any]) -> str:
    """How the artefact is loaded. Where AutoTokenizer drops the normalizer, the class of the tokenizer is named."""
    auto = record["auto_tokenizer"]
    named = "" if auto else "tokenizer=PreTrainedTokenizerFast.from_pretrained(FOLDER), "
    imports = "pipeline" if auto else "PreTrainedTokenizerFast, pipeline"
    return LOAD[record["kind"]].replace("TOKENIZER", named).replace("IMPORTS", imports)


def threshold_text(record: dict[str, Any]) -> str:
    """From which probability on a text is fraud, for those who load the artefact by themselves."""
    if record["kind"] in ("classifier", "onnx"):
        if not record["offset"]:
            return f"A text is called fraud from a probability of {record['threshold']:.6g} on."
        return (
            f"A text is called fraud from a probability of {record['threshold']:.6g} on. The head has no bias, so this "
            f"probability lacks the calibration's offset. The calibrated probability is "
            f"sigmoid(log-odds {record['offset']:+.6g}), its threshold {record['probability_threshold']:.6g}. "
            "`score.py` gives that one."
        )
    return (
        f"Calibrated log-odds are {record['slope']:.6g} × (logit of `true` − logit of `false`) "
        f"{record['offset']:+.6g}. A text is called fraud from a probability of {record['probability_threshold']:.6g} "
        "on. `score.py` does this."
    )


def parity_table(parity: dict[str, Any]) -> str:
    """How the export's scores differ from the trained model's, and what that costs on test."""
    names = {
        "log_odds_largest_difference": "largest difference of log-odds",
        "log_odds_mean_difference": "mean difference of log-odds",
        "rank_correlation": "rank correlation",
        "decisions_changed": "decisions changed",
        "average_precision_difference": "average precision, difference",
    }
    valid = parity.get("recalibrated", parity["valid"])
    lines = [f"| {text} | {valid[key]:.3g} |" for key, text in names.items() if key in valid]
    table = "\n".join([f"| on {valid['rows']} rows of valid | |", "|---|---|", *lines])
    if "test" not in parity:
        return table
    test = parity["test"]
    metrics = [name for name in ("average_precision", "f1", "precision", "recall") if name in test["export"]]
    rows = [f"| {name} | {bounds(test['original'], name)} | {bounds(test['export'], name)} |" for name in metrics]
    return "\n".join(
        [
            table,
            "",
            "Its scores are not the original's, so calibration and threshold were fitted anew on valid.",
            "",
            f"| on {test['size']['rows']} rows of test | trained model | this export |",
            "|---|---|---|",
            *rows,
        ]
    )


def bounds(metrics: dict[str, float], name: str) -> str:
    """A metric with its interval, where it has one."""
    value = f"{metrics[name]:.3f}" if name in metrics else "–"
    low, high = (metrics.get(f"{name}_{end}") for end in ("low", "high"))
    return value if low is None or high is None else f"{value} [{low:.3f}, {high:.3f}]"


def figures_text(selected: TrainedClassifier, metrics: Path = METRICS) -> str:
    """The trained model and the baseline on test, if metrics/ is of this model."""
    files = [metrics / f"{name}.json" for name in ("select", "evaluate", "data")]
    if not all(file.is_file() for file in files):
        return "metrics/ holds no figures of this model: run `dvc repro` before the export."
    select, evaluate, data = map(read_json, files)
    same = all(select.get(key) == getattr(selected, key) for key in ("step", "threshold", "temperature"))
    if not same or not {"model", "baseline", "size"} <= evaluate.keys():
        return "metrics/ holds figures of another model: run `dvc repro` before the export."
    names = ("average_precision", "f1", "precision", "recall", "false_alarms_per_1000")
    there = [name for name in names if name in evaluate["model"]]
    rows = [f"| {name} | {bounds(evaluate['model'], name)} | {bounds(evaluate['baseline'], name)} |" for name in there]
    leaks = {name: count for name, count in data.get("leakage", {}).get("test", {}).items() if isinstance(count, int)}
    found = ", ".join(f"{name} {count}" for name, count in sorted(leaks.items())) or "none counted"
    size = evaluate["size"]
    return "\n".join(
        [
            f"| {size['rows']} rows of test, {size['units']} units | model | baseline |",
            "|---|---|---|",
            *rows,
            "",
            "Brackets are intervals of 95 % over units. The baseline is TF-IDF with a linear classifier.",
            f"Rows of test that appear in train: {found}. Fraud in test: {size['fraud_fraction']:.1%}.",
        ]
    )
