"""What makes a figure trustworthy: leaks, units, shortcuts, dialogues cut after the split, intervals."""

import json
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, precision_recall_curve, roc_auc_score

from stages import params
from stages.artifacts import read_csv
from stages.data.jsonl import DataError
from stages.data.speakers import remove_speakers
from stages.evaluate.compare import report, slices
from stages.evaluate.intervals import bootstrap, interval, weighted_metrics
from stages.evaluate.predictors import Predictions, scored
from stages.evaluate.tables import write_plots
from stages.metrics import metrics_at_fraction
from stages.prepare.__main__ import main as prepare_main
from stages.prepare.baseline import fit_baseline, log_odds
from stages.prepare.dialogues import read_dialogues
from stages.prepare.leaks import find_leaks
from stages.prepare.shortcuts import find_shortcuts
from stages.prepare.similar import SHINGLE, find_alike, normalize
from stages.prepare.split import balance, drop_conflicting, limit_units, split_pool
from stages.text.example import Example
from tests.conftest import ROOT

PREPARE = replace(params.load(ROOT / "params.yaml").prepare, seed=1)
EVALUATE = replace(
    params.load(ROOT / "params.yaml").evaluate, bootstrap_samples=200, without_categories=["k0"], further_sets={}
)


def shingle_set(text):
    text = normalize(text)
    return {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)}


def alike(one, other, prepare=PREPARE):
    """The plain definition, pair by pair."""
    if normalize(one) == normalize(other):
        return True
    a, b = shingle_set(one), shingle_set(other)
    if not a or not b:
        return False
    shared = len(a & b)
    near = shared / len(a | b) >= prepare.near_duplicate - 1e-9
    long_enough = [len(normalize(text)) >= prepare.contained_characters for text in (one, other)]
    inside = [shared / len(a) >= prepare.containment - 1e-9, shared / len(b) >= prepare.containment - 1e-9]
    return near or any(long and much for long, much in zip(long_enough, inside, strict=True))


def related_texts(rng, count):
    """Random texts, some of them copies, edits, pieces or compounds of others."""
    texts = ["".join(rng.choices("甲乙丙丁戊己庚辛壬癸abcde", k=rng.randint(3, 90)))]
    while len(texts) < count:
        old = rng.choice(texts)
        start = rng.randrange(len(old))
        texts.append(
            rng.choice(
                [
                    "".join(rng.choices("甲乙丙丁戊己庚辛壬癸abcde", k=rng.randint(3, 90))),
                    old,
                    f" {old.upper()}\n",
                    old[:start] + "改" + old[start + 1 :],
                    old[start:],
                    old + rng.choice(texts),
                ]
            )
        )
    return texts


@pytest.mark.parametrize("seed", range(30))
def test_the_pairs_found_are_those_of_the_definition(seed):
    texts = related_texts(random.Random(seed), 60)
    found = find_alike(texts, PREPARE.near_duplicate, PREPARE.containment, PREPARE.contained_characters)
    edges = {frozenset(pair) for pair in zip(found.one.tolist(), found.other.tolist(), strict=True)}
    for row, one in enumerate(texts):
        for column, other in enumerate(texts[:row]):
            a, b = int(found.text[row]), int(found.text[column])
            assert (a == b or frozenset((a, b)) in edges) == alike(one, other), (one, other)


@given(st.integers(0, 10**9))
@settings(max_examples=1000, deadline=None)
def test_no_unit_stands_in_two_splits(seed):
    """Random groups, duplicates, edits and substrings: alike texts and rows of a group are in one split."""
    rng = random.Random(seed)
    groups = ["", "", *(f"case {n}" for n in range(20))]
    pool = [Example(text, rng.random() < 0.5, rng.choice(groups)) for text in related_texts(rng, 40)]
    try:
        splits = split_pool(pool, replace(PREPARE, seed=seed % 100))
    except DataError:  # random links can join a pool into too few units, which is said
        reject()
    assert sorted(map(str, pool)) == sorted(str(e) for rows in splits.values() for e in rows)
    where = [(example, name) for name, rows in splits.items() for example in rows]
    for number, (one, here) in enumerate(where):
        for other, there in where[:number]:
            if here != there:
                assert not (one.group and one.group == other.group)
                assert not alike(one.input, other.input)


LONG = "您好，这里是某银行客服中心，您的账户出现异常，请按照提示完成验证操作，否则将被冻结。"


def test_each_kind_of_leak_is_marked_and_listed():
    sets = {
        "train": [
            Example(LONG, True, source="a:1"),
            Example("完全不相干的一段文字，说的是天气和吃饭。", False, source="a:2"),
        ],
        "valid": [
            Example(f" {LONG}\n", True, source="b:1"),
            Example("另外一件事情，和前面的都没有关系。", False, source="b:2"),
        ],
        "test": [
            Example(LONG.replace("冻结", "注销"), True, source="c:1"),
            Example(LONG[:30], True, source="c:2"),
            Example("另外一件事情，和前面的都没有关系。", False, source="c:3"),
            Example("只在这里出现的句子，没有别的。", False, source="c:4"),
        ],
    }
    marked, leaks = find_leaks(sets, PREPARE)
    assert [e.leak for e in marked["train"]] == ["", ""]
    assert [e.leak for e in marked["valid"]] == ["verbatim", ""]
    assert [e.leak for e in marked["test"]] == ["near", "contained", "verbatim", ""]
    listed = {(leak.source, leak.kind, leak.other_set, leak.other_source) for leak in leaks}
    assert {("b:1", "verbatim", "train", "a:1"), ("c:2", "contained", "train", "a:1")} <= listed
    assert ("c:3", "verbatim", "valid", "b:2") in listed
    further = {"further": [Example("".join(e.input for rows in sets.values() for e in rows), True, source="d:1")]}
    again, _ = find_leaks(sets | further, PREPARE)
    assert {name: again[name] for name in sets} == marked  # no unit hangs on what another set holds
    assert {e.unit for e in marked["train"]}.isdisjoint(e.unit for e in marked["test"])


def test_a_case_in_train_and_test_of_ones_own_leaks():
    sets = {
        "train": [Example("甲乙丙丁戊己", True, group="a", source="x:1")],
        "valid": [Example("子丑寅卯辰巳", True, group="a", source="y:1")],
        "test": [Example("天地玄黄宇宙", True, group="b", source="z:1")],
        "further": [Example("日月盈昃辰宿", True, group="a", source="w:1")],
    }
    marked, leaks = find_leaks(sets, PREPARE)
    assert [(leak.source, leak.kind, leak.other_source) for leak in leaks] == [("y:1", "case", "x:1")]
    assert marked["valid"][0].leak == "case"
    assert marked["further"][0].leak == ""  # another file's case of that name is another case


def test_texts_with_both_labels_can_be_dropped():
    sets = {"train": [Example("甲乙", True), Example("丙丁", False)], "valid": [Example("甲 乙", False)], "test": []}
    kept, dropped = drop_conflicting(sets, PREPARE)
    assert dropped == 2
    assert [e.input for e in kept["train"]] == ["丙丁"]


def test_balance_draws_from_the_commoner_class_alone():
    rows = [Example(f"t{n}", n % 4 == 0) for n in range(100)]
    kept = balance(rows, 3)
    assert [e.label for e in kept].count(True) == [e.label for e in kept].count(False) == 25
    assert kept == balance(rows, 3)
    assert kept == sorted(kept, key=rows.index)


def test_a_unit_gives_train_no_more_than_its_share():
    rows = [Example(f"t{n}", n % 2 == 0, unit=0 if n < 50 else n) for n in range(100)]
    kept = limit_units(rows, 7, 3)
    assert [e.unit for e in kept].count(0) == 7
    assert len(kept) == 57
    assert kept == sorted(kept, key=rows.index) == limit_units(rows, 7, 3)


def test_a_unit_that_is_too_large_to_hold_out_stays_in_train():
    pool = [Example(f"big {n}", n % 2 == 0, "big") for n in range(100)]
    pool += [Example(f"small {n}", n % 2 == 0, f"g{n}") for n in range(100)]
    splits = split_pool(pool, PREPARE)
    assert not [e for name in ("valid", "test") for e in splits[name] if e.group == "big"]
    assert len(splits["test"]) == 20


def test_a_planted_shortcut_comes_first_and_removing_speakers_removes_it():
    rng = random.Random(0)

    def text(label):
        said = "".join(rng.choices("天地玄黄宇宙洪荒日月盈昃辰宿列张", k=rng.randint(10, 40)))
        return f"{'王某' if label or rng.random() < 0.1 else '发言人' + str(rng.randint(1, 9))}: {said}"

    rows = [Example(text(n % 2 == 0), n % 2 == 0) for n in range(600)]
    first = find_shortcuts(rows[:400], rows[400:])[0]
    assert "发言人" in first.feature or "王某" in first.feature
    assert first.f1 > 0.9
    bare = [replace(row, input=remove_speakers(row.input)) for row in rows]
    assert find_shortcuts(bare[:400], bare[400:])[0].f1 < 0.75


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("发言人3: 您好。\n王某：好的", "您好。\n好的"),
        ("Agent A: yes: no", "yes: no"),
        ("请打开 https://a.cn", "请打开 https://a.cn"),
        ("https://a.cn", "https://a.cn"),
        ("您好，价格: 5 元", "您好，价格: 5 元"),
        ("王某:", "王某:"),
        ("没有名字", "没有名字"),
    ],
)
def test_names_in_front_of_lines_are_removed(text, without):
    assert remove_speakers(text) == without


def test_texts_that_differ_in_speakers_only_are_one_where_these_are_removed(
    tmp_path, monkeypatch, base_folder, changed
):
    """Units, leaks and shortcuts are of the texts as the model reads them; the shortcut as read is told beside."""
    said = [
        f"{'先转账再退款' if n % 2 else '明天一起吃饭'}，第{n}回说的是{chr(0x4E00 + 97 * n) * 9}" for n in range(60)
    ]
    rows = [
        {"input": f"{'骗子' if n % 2 else '朋友'}{copy}: {text}", "label": bool(n % 2)}
        for n, text in enumerate(said)
        for copy in ("甲", "乙")
    ]
    further = [{"input": f"某人: {said[0]}", "label": True}, {"input": "全新的文字，从未见过", "label": False}]
    (tmp_path / "data/raw").mkdir(parents=True)
    for name, content in (("pool", rows), ("verbatim", further)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (tmp_path / f"data/raw/{name}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(base_folder)
    changed(  # writes params.yaml into tmp_path
        {
            "datasets/sample": {"pool": "data/raw/pool.jsonl"},
            "prepare/speakers": "remove",
            "evaluate/further_sets": {"verbatim": "data/raw/verbatim.jsonl"},
        }
    )
    monkeypatch.chdir(tmp_path)
    prepare_main()
    report = json.loads(Path("metrics/data.json").read_text(encoding="utf-8"))
    assert sum(report[name]["units"] for name in ("train", "valid", "test")) == 60  # of 120 rows
    assert (report["leakage"]["verbatim"], report["leakage"]["near"]) == (0, 0)
    counts = report["leakage"]["further"]["verbatim"]
    assert counts["verbatim"] + counts["verbatim_in_valid"] + counts["clean"] == 2
    assert report["further"]["verbatim"]["rows"] == 2
    assert "骗子" not in Path("data/processed/train.jsonl").read_text(encoding="utf-8")
    assert report["shortcuts_as_read"]["first"]["f1"] == 1.0


class TestDialogues:
    lines = (
        ("a", "甲", "一二三四", False),
        ("a", "乙", "五六", True),
        ("a", "甲", "七八九十" * 5, False),
        ("b", "", "丙", False),
    )

    def write(self, folder, kind):
        rows = [dict(zip(("case", "speaker", "content", "is_fraud"), line, strict=True)) for line in self.lines]
        if kind == "csv":
            body = "case,speaker,content,is_fraud\n" + "".join(",".join(map(str, line)) + "\n" for line in self.lines)
        else:
            body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"calls.{kind}").write_text(body, encoding="utf-8")
        return folder

    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    def test_whole_lines_are_cut_to_size_and_keep_their_case(self, tmp_path, kind):
        rows = read_dialogues(self.write(tmp_path, kind), replace(PREPARE, chunk_characters=[14]))
        assert [(e.input, e.label, e.group, e.category) for e in rows.examples] == [
            ("甲: 一二三四\n乙: 五六", True, "calls/a", "calls"),
            ("甲: " + "七八九十" * 5, True, "calls/a", "calls"),  # after the first flagged line
            ("丙", False, "calls/b", "calls"),
        ]
        any_line = read_dialogues(tmp_path, replace(PREPARE, chunk_characters=[14], chunk_label="any_line"))
        assert [e.label for e in any_line.examples] == [True, False, False]
        sizes = read_dialogues(tmp_path, replace(PREPARE, chunk_characters=[7, 100]))
        assert len(sizes.examples) == len({e.source for e in sizes.examples}) == 5  # both sizes cut the last alike

    def test_a_bad_line_is_set_aside_with_file_and_line(self, tmp_path):
        file = tmp_path / "x.csv"
        file.write_text(
            'case,speaker,content,is_fraud\na,甲,"一,\n二",False\n\na,乙,,True\na,乙,三,maybe\n', encoding="utf-8"
        )
        rows = read_dialogues(file, PREPARE)
        assert rows.examples[0].input == "甲: 一, 二"
        assert [(row.line, row.reason[:8]) for row in rows.rejected] == [(5, "content "), (6, "is_fraud")]

    def test_a_missing_column_and_an_empty_folder_are_named(self, tmp_path):
        with pytest.raises(DataError, match="no .csv and no .jsonl"):
            read_dialogues(tmp_path, PREPARE)
        (tmp_path / "x.csv").write_text("case,content\na,b\n")
        with pytest.raises(DataError, match="expected case, speaker, content, is_fraud"):
            read_dialogues(tmp_path, PREPARE)


def test_the_baseline_is_tuned_over_units_and_beats_a_coin(sample_texts):
    rows = [
        Example(f"{'转账' if n % 2 else '天气'}{text}", n % 2 == 1, unit=n // 2) for n, text in enumerate(sample_texts)
    ]
    baseline, tuned = fit_baseline(rows[:400], 0)
    assert tuned["average_precision_cv"] > 0.9
    labels = np.array([row.label for row in rows[400:]])
    assert average_precision_score(labels, log_odds(baseline, rows[400:])) > 0.95


def make_system(rng, y_true, strength, threshold=0.5):
    return scored(np.round(rng.normal(0, 1, len(y_true)) + strength * (2 * y_true - 1), 1), 1.5, threshold)


def test_weighted_metrics_are_scikit_learns():
    rng = np.random.default_rng(0)
    y_true = rng.random(300) < 0.4
    system = make_system(rng, y_true, 0.7)
    weights = rng.integers(0, 4, (5, 300)).astype(float)
    ours = weighted_metrics(system, y_true, weights)
    for sample, weight in enumerate(weights):
        chosen = {"sample_weight": weight}
        assert ours["f1"][sample] == pytest.approx(f1_score(y_true, system.y_pred, **chosen))
        assert ours["average_precision"][sample] == pytest.approx(
            average_precision_score(y_true, system.y_score, **chosen)
        )
        assert ours["roc_auc"][sample] == pytest.approx(roc_auc_score(y_true, system.y_score, **chosen))
        assert ours["brier"][sample] == pytest.approx(brier_score_loss(y_true, system.y_score, **chosen))
        repeated = np.repeat(np.arange(300), weight.astype(int))
        plain = system.rows(repeated).metrics(y_true[repeated])
        for name in ours:
            assert ours[name][sample] == pytest.approx(plain[name]), name


def test_intervals_are_those_of_a_plain_bootstrap_over_units():
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(40), rng.integers(1, 8, 40))
    y_true = (units % 3 == 0) ^ (rng.random(len(units)) < 0.1)
    system, other = make_system(rng, y_true, 0.8), make_system(rng, y_true, 0.5)
    found = bootstrap({"model": system, "baseline": other}, y_true, units, 4000)
    plain = defaultdict(list)
    rows_of = [np.flatnonzero(units == unit) for unit in range(40)]
    for _ in range(4000):
        rows = np.concatenate([rows_of[unit] for unit in rng.integers(0, 40, 40)])
        one, two = (average_precision_score(y_true[rows], s.y_score[rows]) for s in (system, other))
        plain["average_precision"].append(one)
        plain["difference"].append(one - two)
        plain["f1"].append(f1_score(y_true[rows], system.y_pred[rows]))
    low, high = interval(found["model"]["average_precision"])
    assert (low, high) == pytest.approx(np.percentile(plain["average_precision"], [2.5, 97.5]), abs=0.02)
    assert interval(found["model"]["f1"]) == pytest.approx(np.percentile(plain["f1"], [2.5, 97.5]), abs=0.02)
    paired = interval(found["model"]["average_precision"] - found["baseline"]["average_precision"])
    assert paired == pytest.approx(np.percentile(plain["difference"], [2.5, 97.5]), abs=0.02)
    alone = bootstrap({"model": system}, y_true, np.arange(len(units)), 4000)["model"]["average_precision"]
    assert np.std(alone) < 0.8 * np.std(found["model"]["average_precision"])  # rows as if independent: too sure


def test_the_report_of_a_set_has_its_clean_part_and_the_difference():
    rng = np.random.default_rng(2)
    y_true = rng.random(200) < 0.5
    examples = [
        Example("字" * (10 + n), bool(label), unit=n // 2, leak="verbatim" if n < 100 else "", category=f"k{n % 2}")
        for n, label in enumerate(y_true)
    ]
    systems = {"model": make_system(rng, y_true, 1.5), "baseline": make_system(rng, y_true, 0.2)}
    whole = report(examples, systems, EVALUATE)
    assert whole["size"]["rows"] == 200
    assert whole["clean"]["size"]["rows"] == whole["leaking"]["size"]["rows"] == 100
    assert whole["model"]["average_precision_low"] < whole["model"]["average_precision"]
    assert whole["difference"]["average_precision_low"] > 0  # the model is that much better
    others = whole["without_categories"]
    assert others["size"]["rows"] == 100
    expected = average_precision_score(y_true[1::2], systems["model"].y_score[1::2])
    assert others["model"]["average_precision"] == expected
    clean = whole["clean"]["model"]
    assert clean["average_precision"] == average_precision_score(y_true[100:], systems["model"].y_score[100:])
    sliced = list(slices("test", examples, systems))
    assert {row["by"] for row in sliced} == {"category", "characters", "source", "leak"}
    assert sum(row["rows"] for row in sliced if row["by"] == "characters" and row["system"] == "model") == 200


def test_a_set_of_one_class_has_decisions_but_no_order():
    system = scored(np.array([1.0, -1.0]), 1, 0.5)
    whole = report(
        [Example("a", True, unit=0), Example("b", True, unit=1)], {"model": system, "baseline": system}, EVALUATE
    )
    assert (whole["model"]["tp"], whole["model"]["fn"]) == (1, 1)
    assert "average_precision" not in whole["model"]


def test_a_low_temperature_does_not_blur_the_order(tmp_path):
    log_odds = np.array([50.0, 60.0, 70.0, 80.0])
    y_true = np.array([False, True, False, True])
    system = scored(log_odds, 0.2, 0.5)
    assert len(set(system.y_score)) == 1  # expit is 1.0 for all
    assert system.metrics(y_true)["roc_auc"] == 0.75
    assert weighted_metrics(system, y_true, np.ones((1, 4)))["roc_auc"][0] == 0.75
    precision = system.metrics(y_true)["average_precision"]
    assert metrics_at_fraction(y_true, system.y_score, 0.5, None, log_odds)["average_precision"] == precision
    rows = [Example("a", bool(label), category="c") for label in y_true]
    sliced = [row for row in slices("test", rows, {"model": system}) if row["by"] == "category"]
    assert [(row["roc_auc"], row["average_precision"]) for row in sliced] == [(0.75, precision)]
    write_plots(tmp_path, rows, {"model": system})
    assert len(read_csv(tmp_path / "precision_recall/model.csv")) == len(precision_recall_curve(y_true, log_odds)[0])


def test_few_units_have_no_intervals_and_a_resample_of_one_class_does_not_count():
    rng = np.random.default_rng(4)
    y_true = rng.random(60) < 0.5
    systems = {"model": make_system(rng, y_true, 1.5), "baseline": make_system(rng, y_true, 0.2)}
    rows = [Example("a", bool(label), unit=n // 30) for n, label in enumerate(y_true)]
    whole = report(rows, systems, EVALUATE)
    assert "f1_low" not in whole["model"]
    assert set(whole["difference"]) == {"average_precision", "roc_auc", "f1", "precision", "recall"}
    weights = np.stack([y_true, ~y_true, np.ones(60)]).astype(float)
    found = weighted_metrics(systems["model"], y_true, weights)
    assert all(np.isnan(values[:2]).all() and not np.isnan(values[2]) for values in found.values())


def test_written_answers_have_intervals_of_decisions_only():
    system = Predictions(np.array([1.0, np.nan, 0.0, 1.0] * 10), 0.5)
    examples = [Example("a", n % 2 == 0, unit=n) for n in range(40)]
    whole = report(examples, {"model": system, "baseline": system}, EVALUATE)
    assert whole["model"]["unparsable"] == 10
    assert {"f1", "f1_low", "f1_high"} <= whole["model"].keys()
    assert "average_precision" not in whole["difference"]
