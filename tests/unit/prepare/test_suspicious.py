"""Labels that may be wrong are found and listed, and no row is dropped."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from stages import params
from stages.artifacts import read_csv
from stages.prepare.__main__ import main as prepare_main
from stages.prepare.suspicious import confident, find_suspicious, list_suspicious
from stages.text.example import Example
from tests.conftest import ROOT
from tests.unit.prepare.tables import encode

PREPARE = params.load(ROOT / "params.yaml").prepare
LONG = "您好，您的快递已经到了三号门的柜子里，请在今天晚上八点以前来取，谢谢您的配合"


def test_confident_learning_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    labels, p = rng.random(500) < 0.4, rng.random(500)
    bound = {True: p[labels].mean(), False: (1 - p[~labels]).mean()}
    for n, found in enumerate(confident(labels, p).tolist()):
        of = {True: p[n], False: 1 - p[n]}
        passing = [label for label in (True, False) if of[label] >= bound[label]]
        counted = max(passing, key=lambda label: of[label], default=bool(labels[n]))
        assert found == (counted != labels[n])


def test_texts_of_both_labels_come_first_then_similar_ones():
    near = replace(Example(LONG, True, source="a:1"), input=LONG + "！")
    train = [Example("一样的文字", True, source="a:3"), Example("别的", False, source="a:4"), near]
    test = [Example(LONG, False, source="b:1"), Example("一样的文字", False, source="b:2")]
    found = find_suspicious({"train": train, "test": test}, None, PREPARE)
    assert [(row.reason, row.source, row.other_source) for row in found] == [
        ("conflict", "a:3", "b:2"),
        ("conflict", "b:2", "a:3"),
        ("similar", "a:1", "b:1"),
        ("similar", "b:1", "a:1"),
    ]
    assert find_suspicious({"train": train[:2], "test": test[:1]}, None, PREPARE) == []


def test_flipped_labels_are_listed_and_kept(project, capsys):
    rng = np.random.default_rng(1)
    rows, flipped = [], set()
    for n in range(300):
        fraud = n % 2 == 0
        said = "请立即转账到安全账户" if fraud else "明天一起去公园散步吧"
        text = "".join(chr(0x4E00 + int(k)) for k in rng.integers(0, 8000, 9)) + said
        if n % 25 == 3 or n % 50 == 4:
            flipped.add(f"a.jsonl:{n + 1}")
        rows.append({"input": text, "label": fraud ^ (f"a.jsonl:{n + 1}" in flipped)})
    project({"a.jsonl": encode(rows).decode()}, {"datasets/sample": {"pool": "data/raw/a.jsonl"}})
    prepare_main()
    list_suspicious(PREPARE)
    found = read_csv(Path("runs/suspicious.csv"))
    listed = {row["source"] for row in found}
    assert len(flipped) == 18
    assert len(listed & flipped) >= 14
    assert len(listed - flipped) <= 2
    assert f"prepare: {len(found)} labels may be wrong (0 rows of texts with both labels" in capsys.readouterr().out
    sets = "".join(Path(f"data/processed/{name}.jsonl").read_text("utf-8") for name in ("train", "valid", "test"))
    assert sets.count("\n") == len(rows)
