"""Two checkouts with made scores: a worse model is caught, and a model of another seed is let through."""

import shutil
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from stages.artifacts import write_csv, write_json
from stages.classifier.trained import TrainedClassifier
from stages.command import CheckFailedError
from stages.compare.__main__ import below, main
from stages.compare.messages import flat
from stages.compare.pairs import compare_pairs, joined, pair
from stages.compare.sides import read_side
from stages.errors import UserError
from stages.text.example import Example, write_examples
from tests.conftest import ROOT

SAMPLES = 200
ROWS = {"train": 40, "valid": 200, "test": 400}
RECORD = TrainedClassifier(
    step=1,
    threshold=0.5,
    temperature=1.0,
    speakers_removed=False,
    valid={},
    promised={"fraud_fraction": 0.5},
    select={
        "threshold": "max_f1",
        "calibration": "platt",
        "cost": {"fp": 1, "fn": 5},
        "min_precision": 0.9,
        "fraud_fraction": None,
    },
    method_name="lora",
    method={},
    prompt={},
    base={},
    dataset_name="made",
)


def rows(split, count):
    return [
        Example(f"{split} text {n}", n % 2 == 1, source=f"{split}.jsonl:{n + 1}", unit=n // 2) for n in range(count)
    ]


def log_odds(examples, seed, signal=2.0):
    """Scores of a model: half of the noise is the text's own, half is the training seed's."""
    label = np.array([1.0 if example.label else -1.0 for example in examples])
    text = np.random.default_rng(0).normal(size=len(label))
    return signal * label + 1.5 * text + 0.5 * np.random.default_rng(seed).normal(size=len(label))


def write_side(folder, seed=2, signal=2.0, test=None, written=False):
    splits = {name: rows(name, count) for name, count in ROWS.items()} | ({"test": test} if test else {})
    for name, examples in splits.items():
        write_examples(folder / f"data/processed/{name}.jsonl", examples)
    scores = {name: log_odds(splits[name], seed + 100 * n, signal) for n, name in enumerate(splits)}
    write_csv(
        folder / "models/selected/valid.csv", ({"log_odds": repr(x)} for x in scores["valid"].tolist()), ["log_odds"]
    )
    write_json(folder / "models/selected/selected.json", asdict(RECORD))
    columns = ["source", "model_score", "model_log_odds"]
    table = [
        {
            "source": example.source,
            "model_score": float(x > 0) if written else 1 / (1 + np.exp(-x)),
            "model_log_odds": "" if written else repr(x),
        }
        for example, x in zip(splits["test"], scores["test"].tolist(), strict=True)
    ]
    write_csv(folder / "data/predictions/test.csv", table, columns)
    write_json(folder / "metrics/evaluate.json", {"best_cheap": {"name": "probe"}, "probe": {"average_precision": 0.9}})
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("bootstrap_samples: 1000", "bootstrap_samples: 200")
    (folder / "params.yaml").write_text(text.replace("seed: 42 ", f"seed: {seed} "), encoding="utf-8")
    return folder


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    write_side(tmp_path / "a")
    shutil.copy(tmp_path / "a/params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)

    def run(*arguments, a="a"):
        monkeypatch.setattr("sys.argv", ["compare", a, *map(str, arguments)])
        main()
        return capsys.readouterr().out.splitlines()

    return run


def test_a_worse_model_is_caught(compare, tmp_path):
    """As after a training whose labels were flipped for a share of the rows: less of the score is the label."""
    write_side(tmp_path / "b", signal=1.2)
    lines = compare("b")
    assert len(lines) == 10
    assert any("verdict" in line and "a wins" in line for line in lines)
    with pytest.raises(CheckFailedError, match="b is worse than a in average_precision and f1"):
        compare("b", "--fail-below", 0)
    compare("b", "--fail-below", -0.9)


def test_the_params_that_differ_are_named(compare, tmp_path):
    write_side(tmp_path / "b", seed=3)
    lines = compare("b")
    assert any(line.startswith("compare: params:") and "train.seed 2 → 3" in line for line in lines)
    assert any("the same rows in train, valid and test" in line for line in lines)


def test_other_seeds_are_let_through_and_worse_models_caught(tmp_path):
    """Each gate flags 1 pair of seeds in 40 by chance, so 4 of 25 or more have a chance of .03 (3 of 120 were flagged).

    Of 25 models whose score holds a fifth less of the label at least 22 are caught.
    """
    flagged = {2.0: 0, 1.6: 0}
    for pair_of_seeds in range(25):
        for signal in flagged:
            folders = [
                write_side(tmp_path / "a", seed=2 * pair_of_seeds),
                write_side(tmp_path / "b", seed=2 * pair_of_seeds + 1, signal=signal),
            ]
            found = compare_pairs(pair(*(read_side(str(folder), SAMPLES) for folder in folders)), SAMPLES)
            flagged[signal] += bool(below(found, 0))
    assert flagged[2.0] <= 3
    assert flagged[1.6] >= 22


def test_rows_are_matched_by_their_text_and_other_labels_are_left_out(compare, tmp_path):
    test = rows("test", 400)[100:]
    test = [replace(row, source=f"moved.jsonl:{n}", label=row.label != (n < 3)) for n, row in enumerate(test)]
    write_side(tmp_path / "b", test=[*test, *rows("new", 20)])
    lines = compare("b")
    assert "compare: rows: 297 of 400 and 320, in 149 units; 3 with another label left out" in lines
    assert "compare: data: test 400 rows, 103 less and 23 more" in lines


def test_written_answers_are_compared_by_f1(compare, tmp_path):
    write_side(tmp_path / "b", signal=1.0, written=True)
    write_side(tmp_path / "a", written=True)
    with pytest.raises(CheckFailedError, match="worse than a in f1:"):
        compare("b", "--fail-below", 0)


def test_a_gate_that_can_not_judge_fails(compare, tmp_path):
    few = [replace(row, unit=n // 3) for n, row in enumerate(rows("test", 12))]
    for name in ("a", "b"):
        write_side(tmp_path / name, test=few, signal=2.0 if name == "a" else -2.0)
    assert compare("b")[-1] == "compare: verdict: too few units for an interval"
    with pytest.raises(UserError, match="a and b can't be judged by --fail-below: .* too few units"):
        compare("b", "--fail-below", 0)


@pytest.mark.parametrize("limit", ["nan", "inf", "-inf"])
def test_a_limit_that_no_loss_reaches_is_refused(compare, tmp_path, limit):
    write_side(tmp_path / "b", signal=1.2)
    with pytest.raises(SystemExit) as ended:
        compare("b", f"--fail-below={limit}")
    assert ended.value.code == 2


def test_a_commit_is_compared_with_a_folder(compare, tmp_path):
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    gone = r"data/processed/train.jsonl of gone can't be read .*dvc fetch"
    with pytest.raises(UserError, match=gone):  # no commits yet
        compare("b", a="gone")
    write_side(tmp_path)
    subprocess.run([*git, "add", "--all"], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "test"], cwd=tmp_path, check=True)
    write_side(tmp_path, signal=1.2)
    with pytest.raises(CheckFailedError, match=r"\. is worse than HEAD in average_precision and f1"):
        compare("--fail-below", 0, a="HEAD")
    with pytest.raises(UserError, match=gone):
        compare("b", a="gone")


def test_predictions_of_another_run_than_the_models_are_refused(compare, tmp_path):
    """As after train and select without evaluate."""
    b = write_side(tmp_path / "b", seed=3)
    write_json(b / "models/selected/selected.json", asdict(replace(RECORD, temperature=2.0)))
    with pytest.raises(UserError, match=r"data/predictions/test.csv of .*b has other scores than the calibration"):
        compare(b)


def test_what_is_missing_is_named(compare, tmp_path):
    write_side(tmp_path / "b", test=rows("other", 50))
    with pytest.raises(UserError, match="share 0 rows"):
        compare("b")
    write_examples(tmp_path / "b/data/processed/test.jsonl", rows("test", 50))
    with pytest.raises(UserError, match="has other rows than data/processed/test.jsonl"):
        compare("b")


def test_units_are_joined_over_both_tests():
    assert joined([np.array([1, 1, 2, 3]), np.array([7, 8, 8, 9])]).tolist() == [0, 0, 0, 1]


def test_flat_keys_are_dotted():
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}
