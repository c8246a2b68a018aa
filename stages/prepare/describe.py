"""What the splits hold, for metrics/data.json."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from stages import UserError
from stages.prepare.split import Splits
from stages.text.example import Example


def describe(splits: Splits, tokenizer_file: Path, *, rejected: int, dropped: int) -> dict[str, Any]:
    """Rows, classes, lengths and duplicates a split; texts found in two splits; rows rejected or dropped."""
    if not tokenizer_file.is_file():
        raise UserError(f"{tokenizer_file} is missing, by which lengths are counted: run `dvc repro fetch` first")
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    return {
        **{name: describe_split(examples, tokenizer) for name, examples in splits.items()},
        "duplicates_across": {
            f"{one}_{other}": shared_rows(splits[one], splits[other])
            for one, other in (("valid", "train"), ("test", "train"), ("test", "valid"))
        },
        "rejected": rejected,
        "dropped_from_train": dropped,
    }


def describe_split(examples: list[Example], tokenizer: Tokenizer) -> dict[str, Any]:
    texts = [example.input for example in examples]
    fraud = sum(example.label for example in examples)
    tokens = np.array([len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)])
    return {
        "rows": len(examples),
        "fraud": fraud,
        "fraud_fraction": fraud / len(examples),
        "groups": len({example.group for example in examples if example.group}),
        "duplicates": len(texts) - len(set(texts)),
        "conflicting_labels": conflicting(examples),
        "characters_mean": float(np.mean([len(text) for text in texts])),
        "tokens": {
            "mean": float(tokens.mean()),
            "p50": float(np.percentile(tokens, 50)),
            "p95": float(np.percentile(tokens, 95)),
            "max": int(tokens.max()),
        },
    }


def conflicting(examples: list[Example]) -> int:
    """How many texts stand with both labels."""
    labels = {(example.input, example.label) for example in examples}
    return sum(count > 1 for count in Counter(text for text, _ in labels).values())


def shared_rows(one: list[Example], other: list[Example]) -> int:
    """How many rows of `one` have a text that stands in `other`."""
    texts = {example.input for example in other}
    return sum(example.input in texts for example in one)
