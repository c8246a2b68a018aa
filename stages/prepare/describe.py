"""The content of the sets, for metrics/data.json and the plots."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score
from tokenizers import Tokenizer

from stages.errors import UserError
from stages.params import Params
from stages.prepare.leaks import KINDS, Leak, Sets
from stages.prepare.read import Rows
from stages.prepare.shortcuts import Shortcut
from stages.prepare.similar import normalize
from stages.text.example import Example
from stages.units import effective_units

LENGTH_BINS = 40
LARGE_UNIT = 0.05  # of all rows
SPLITS = ("train", "valid", "test")


def describe_inputs(raw: Rows, chosen: Params) -> dict[str, Any]:
    """The data set, how many of its rows were rejected, and its files that were left out, each with the reason."""
    described = {"dataset": chosen.dataset_name, "speakers_removed": chosen.removes_speakers}
    return described | {"rejected": len(raw.rejected)} | ({"left_out": raw.left_out} if raw.left_out else {})


def describe(sets: Sets, tokenizer_file: Path, max_length: int) -> dict[str, Any]:
    """Rows, classes and lengths of each set. Texts of more than `max_length` tokens are counted: they will be cut."""
    if not tokenizer_file.is_file():
        raise UserError(
            f"{tokenizer_file} is missing; expected the tokenizer that counts lengths: run `dvc repro fetch` first"
        )
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    return {name: describe_set(examples, tokenizer, max_length) for name, examples in sets.items()}


def describe_set(examples: list[Example], tokenizer: Tokenizer, max_length: int) -> dict[str, Any]:
    texts = [example.input for example in examples]
    fraud = sum(example.label for example in examples)
    tokens = np.array([len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)])
    return {
        "rows": len(examples),
        "fraud": fraud,
        "fraud_fraction": fraud / len(examples),
        "groups": len({example.group for example in examples if example.group}),
        "units": len({example.unit for example in examples}),
        "effective_units": effective_units(np.array([example.unit for example in examples])),
        "duplicates": len(texts) - len(set(map(normalize, texts))),
        "conflicting_labels": count_conflicting(examples),
        "characters_mean": float(np.mean([len(text) for text in texts])),
        "tokens": {
            "mean": float(tokens.mean()),
            "p50": float(np.percentile(tokens, 50)),
            "p95": float(np.percentile(tokens, 95)),
            "max": int(tokens.max()),
            "over_max_length": int((tokens > max_length).sum()),
        },
    }


def large_units(sets: Sets) -> list[tuple[str, int, float]]:
    """Units with more than LARGE_UNIT of the rows of train, valid and test: source of the first row, rows, share."""
    units: dict[int, list[Example]] = defaultdict(list)
    for name in SPLITS:
        for example in sets[name]:
            units[example.unit].append(example)
    total = sum(map(len, units.values()))
    found = [(rows[0].source, len(rows), len(rows) / total) for rows in units.values()]
    return sorted((unit for unit in found if unit[2] > LARGE_UNIT), key=lambda unit: -unit[1])


def count_conflicting(examples: list[Example]) -> int:
    """How many texts appear with both labels."""
    labels = {(normalize(example.input), example.label) for example in examples}
    return sum(count > 1 for count in Counter(text for text, _ in labels).values())


def nest_further(by_set: dict[str, Any]) -> dict[str, Any]:
    """Moves further sets to a section of their own, so that a user's names can't collide with other keys."""
    further = {name: value for name, value in by_set.items() if name not in SPLITS}
    return {name: by_set[name] for name in by_set.keys() - further.keys()} | {"further": further}


def describe_leaks(sets: Sets, leaks: list[Leak]) -> dict[str, dict[str, int]]:
    """How many rows of each set leak from train, by kind; for test and further sets also from valid.

    A row may count under several kinds. clean: rows under none.
    """
    rows: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for leak in leaks:
        rows[leak.set, leak.other_set, leak.kind].add(leak.source)
    leakage = {}
    for name in sets.keys() - {"train"}:
        leakage[name] = {kind: len(rows[name, "train", kind]) for kind in KINDS}
        if name != "valid":
            leakage[name] |= {f"{kind}_in_valid": len(rows[name, "valid", kind]) for kind in KINDS}
        leakage[name]["clean"] = sum(not example.leak for example in sets[name])
    return leakage


def count_leaks(leakage: dict[str, dict[str, int]]) -> dict[str, int]:
    """How many rows of valid and test together leak from train, by kind."""
    return {kind: leakage["valid"][kind] + leakage["test"][kind] for kind in KINDS}


def describe_shortcuts(shortcuts: list[Shortcut], valid: list[Example]) -> dict[str, Any]:
    """The strongest single feature on valid, and how far its F1 is on the way from "always fraud" to 1."""
    labels = [example.label for example in valid]
    always = float(f1_score(labels, np.ones(len(labels)), zero_division=0))
    if not shortcuts:
        return {"always_fraud_f1": always}
    way = max(0.0, (shortcuts[0].f1 - always) / (1 - always))
    return {"always_fraud_f1": always, "first": {**vars(shortcuts[0]), "of_the_way": way}}


def length_rows(sets: Sets) -> list[dict[str, Any]]:
    """How many texts of each class have how many characters, over all sets. The last bin holds all longer texts."""
    examples = [example for rows in sets.values() for example in rows]
    longest = float(np.percentile([len(example.input) for example in examples], 99))
    edges = np.linspace(0, longest, LENGTH_BINS + 1)[:-1].astype(int)
    counts = {label: [0] * LENGTH_BINS for label in (True, False)}
    for example in examples:
        counts[example.label][int(np.searchsorted(edges, len(example.input), side="right")) - 1] += 1
    return [
        {"characters": int(edge), "fraud": fraud, "not fraud": other}
        for edge, fraud, other in zip(edges, counts[True], counts[False], strict=True)
    ]


def leak_rows(leakage: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    """How many rows leak, by set, kind and the set where they appear."""
    rows = []
    for name, counts in sorted(leakage.items()):
        for kind, count in counts.items():
            if kind != "clean":
                where = "valid" if kind.endswith("_in_valid") else "train"
                rows.append({"leak": f"{name}: {kind.removesuffix('_in_valid')} in {where}", "rows": count})
    return rows
