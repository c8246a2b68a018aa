"""The files of a small run, as the stages write them, and what the report reads of them."""

import json
import shutil

import numpy as np
import pytest

from stages.artifacts import write_csv, write_json
from stages.evaluate.tables import ERROR_COLUMNS, SLICE_COLUMNS
from stages.metrics import decision_metrics
from stages.report.read import Run, read_run
from stages.text.example import Example, write_examples
from tests.conftest import ROOT

HOSTILE = (
    "</script><script>alert(1)</script><img src=http://evil.example/a.png onerror=alert(2)> \"'& \u202egpj.exe\u0007"
)
SYSTEMS = ("model", "zero_shot", "baseline", "probe", "combined", "combined_cheap")
THRESHOLD = 0.4


def write_run(folder, ahead=(-0.07, -0.09, -0.05), text="甲：您好", leak="", category="刷单", rows=60):
    """Writes a run whose model is so far from the best cheap system: difference, low, high; None without interval."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 2 == 0
    examples = [
        Example(f"{text} {n}", bool(label), "", category if label else "日常", f"pool.jsonl:{n}", n, leak)
        for n, label in enumerate(labels)
    ]
    scores = {name: np.clip(labels * 0.3 + rng.random(rows) * 0.7, 0, 1).round(3) for name in SYSTEMS}
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    write_examples(folder / "data/processed/test.jsonl", examples)
    for name in ("train", "valid"):
        write_examples(folder / f"data/processed/{name}.jsonl", examples[:4])
    predictions = [
        {
            "source": row.source,
            **{f"{name}_score": repr(float(scores[name][n])) for name in SYSTEMS},
            **{f"{name}_pred": int(scores[name][n] >= THRESHOLD) for name in SYSTEMS},
        }
        for n, row in enumerate(examples)
    ]
    write_csv(folder / "data/predictions/test.csv", predictions, list(predictions[0]))
    error = {"set": "test", "error": "miss", "probability": "0.1", "baseline_probability": "0.2"}
    error |= {"category": category, "source": "pool.jsonl:1", "input": text}
    write_csv(folder / "data/predictions/errors.csv", [error], ERROR_COLUMNS)
    write_figures(folder, labels, scores, ahead)
    return folder


def write_figures(folder, labels, scores, ahead):
    own = {"threshold": THRESHOLD}
    own |= {"average_precision": 0.9, "average_precision_low": 0.85, "average_precision_high": 0.95}
    blocks = {name: decision_metrics(labels, score >= THRESHOLD) | own for name, score in scores.items()}
    less = dict(zip(("average_precision", "average_precision_low", "average_precision_high"), ahead, strict=False))
    evaluate = {
        **blocks,
        "ahead": {name: less for name in SYSTEMS if name != "combined_cheap"},
        "best_cheap": {"name": "combined_cheap"},
        "size": {"rows": len(labels), "units": len(labels), "fraud_fraction": 0.5, "rows_truncated": 3},
        "environment": {"python": "3.11"},
        "further": {},
    }
    metrics = folder / "metrics"
    write_json(metrics / "evaluate.json", evaluate)
    first = {"feature": "first token 您好", "fraud_if": "present", "f1": 0.7, "of_the_way": 0.1}
    write_json(metrics / "data.json", {"shortcuts": {"always_fraud_f1": 0.667, "first": first}, "rejected": 2})
    folds = {"best_cheap": {"name": "combined_cheap"}, "size": {"rows": 2 * len(labels)}}
    write_json(metrics / "folds.json", folds | {name: blocks[name] for name in ("baseline", "combined_cheap")})
    write_json(metrics / "select.json", {"system": "model"})
    train = {"facts": {"rows": 100, "rows_truncated": 7}, "measured": {"seconds": 123456.0}}
    probe = {"measured": {"seconds": 2.0}, "environment": {"device": "a CPU"}}
    for name, figures in (("train", train), ("probe", probe)):  # as their stages leave them, and as the report does
        write_json(folder / f"models/{name}.json", figures)
        write_json(metrics / f"{name}.json", figures)
    plots = metrics / "plots"
    write_csv(plots / "leaks.csv", [{"leak": "test: near in train", "rows": 1}], ["leak", "rows"])
    lengths = [{"characters": 0, "fraud": 3, "not fraud": 4}, {"characters": 25, "fraud": 0, "not fraud": 1}]
    write_csv(plots / "lengths.csv", lengths, ["characters", "fraud", "not fraud"])
    columns = ["feature", "fraud_if", "f1", "mutual_information", "share"]
    write_csv(plots / "shortcuts.csv", [{**first, "share": 0.5, "mutual_information": 0}], columns)
    bands = [{"set": "test", "by": "characters", "value": value} for value in ("0000-0050", "0051-0100")]
    write_csv(plots / "slices.csv", bands, SLICE_COLUMNS)
    for name in ("model", "model_before"):
        bins = [{"probability": 0.1, "fraud_fraction": 0.2}, {"probability": 0.9, "fraud_fraction": 0.8}]
        write_csv(plots / f"reliability/{name}.csv", bins, ["probability", "fraud_fraction"])
    selected = folder / "models/selected"
    selected.mkdir(parents=True)
    (selected / "adapter_model.safetensors").write_bytes(b"weights")
    base = {"id": "a/base", "revision": "0123456789abcdef0"}
    record = {"base": base, "method_name": "qlora", "prompt": {"max_length": 512}}
    (selected / "selected.json").write_text(json.dumps(record))


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Writes a run, makes its folder the working directory, and reads it."""

    def make(**given) -> Run:
        monkeypatch.chdir(write_run(tmp_path, **given))
        return read_run()

    return make
