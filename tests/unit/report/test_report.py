"""The report: what its sentences say, that texts can't change it, and that it needs nothing from outside."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from stages.errors import UserError
from stages.report import here
from stages.report.__main__ import main
from stages.report.errors import Mark
from stages.report.facts import facts
from stages.report.page import page, slider_data
from stages.report.rates import (
    MOST_POINTS,
    NO_ALARM,
    Point,
    cheapest,
    corners,
    costs,
    is_few,
    most_false,
    outstanding,
    points,
    rate,
    up_to,
)
from stages.report.read import figure, read_run
from stages.report.sections import further
from stages.report.threshold import own_point
from stages.report.verdict import headline, sentences, standing_of
from tests.unit.compare.test_command import write_side
from tests.unit.report.conftest import HOSTILE

BEHIND = "Do not ship the fine-tuned model: probe + TF-IDF is better."
EQUAL = "A cheap system does as well: probe + TF-IDF."
NOT_SHOWN = "As far as this test can show, a cheap system does as well: probe + TF-IDF."


class Parts(HTMLParser):
    """Collects start tags with their attributes, and the content of scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "script"

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def said(run, language="en"):
    answers = [words for fact in facts(run) for words in fact]
    return "\n".join(getattr(words, language) for words in [headline(run), *sentences(run), *answers]).replace(
        "\xa0", " "
    )


def change(path, edit):
    """Edits a JSON file in place."""
    values = json.loads(path.read_text(encoding="utf-8"))
    edit(values)
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize(
    ("ahead", "expected", "ship", "english", "chinese"),
    [
        ((0.05, 0.03, 0.07), "ahead", "Use the fine-tuned model.", "fine-tuned model is better than", "微调模型优于"),
        ((-0.07, -0.09, -0.05), "behind", BEHIND, "fine-tuned model is worse than", "微调模型不如"),
        ((0.01, -0.03, 0.05), "not shown", NOT_SHOWN, "It is not shown whether", "尚不能说明"),
        ((0.0, -0.01, 0.01), "equal", EQUAL, "within the margin of 0.02", "容差 0.02 之内"),
        ((0.1,), "unknown", "It is not known whether to ship the fine-tuned model.", "can't be compared", "无法比较"),
    ],
)
def test_the_headline_says_whether_to_ship(make_run, ahead, expected, ship, english, chinese):
    run = make_run(ahead=ahead)
    assert standing_of(run) == expected
    assert headline(run).en == ship
    first = sentences(run)[0]
    assert english in first.en
    assert chinese in first.zh
    assert "probe + TF-IDF" in first.en


def test_the_best_cheap_system_is_judged_beside_the_model(make_run):
    run = make_run()
    own, cheap = sentences(run)[1:3]
    for words, system in ((own, "model"), (cheap, "combined_cheap")):
        block = run.evaluate[system]
        assert f"finds {100 * block['recall']:.1f}\xa0% of the fraud" in words.en
        right = 1 / (1 + 99 * block["false_alarms_per_1000"] / 1000 / block["recall"])
        assert f"Where 1 text in 100 is fraud, {100 * right:.1f}\xa0% of its alarms are right" in words.en
    assert "the fine-tuned model finds" in own.en
    assert "the probe + TF-IDF finds" in cheap.en
    assert "探针 + TF-IDF 找出" in cheap.zh


@pytest.mark.parametrize("fp", [0, 1, 9, 10])
def test_few_false_alarms_give_an_upper_bound(make_run, fp):
    """Of 30 harmless texts, a unit each. The upper end of a 90 % interval is a one-sided 95 % bound."""
    run, point = make_run(), Point(0.5, 20, fp)
    bound = binomtest(fp, 30).proportion_ci(0.9, method="wilson" if fp else "exact").high
    expected = bound if fp < 10 else fp / 30
    assert most_false(run, point) == pytest.approx(expected, abs=1e-6)
    assert up_to(point, "7").en == ("up to 7" if fp < 10 else "7")
    bounded, measured = (costs(run, point, 0.01, 1, 1, bound=each) for each in (True, False))
    assert bounded.right <= measured.right
    assert bounded.false_alarms == pytest.approx(990 * expected, abs=0.01)
    assert not is_few(Point(NO_ALARM, 0, 0))


def test_a_model_without_false_alarms_is_right_at_least_so_often(make_run, tmp_path):
    make_run()
    change(tmp_path / "metrics/evaluate.json", lambda values: values["model"].update(tp=20, fn=10, fp=0, tn=30))
    run = read_run()
    assert f"at least {100 / (1 + 99 * 0.09504 * 1.5):.1f}\xa0% of its alarms are right" in sentences(run)[1].en


def test_the_rule_of_the_threshold_is_said(make_run, tmp_path):
    make_run()
    assert "by the rule max_f1 (select.threshold)" in said(read_run())
    assert "Other rules alone use select.min_precision (0.95) and select.cost (false alarm 1, miss 5)." in said(
        read_run()
    )
    params = tmp_path / "params.yaml"
    text = re.sub(r"  threshold: max_f1 ", "  threshold: min_cost ", params.read_text(encoding="utf-8"))
    params.write_text(text.replace("fraud_fraction: null", "fraud_fraction: 0.02"), encoding="utf-8")
    words = said(read_run())
    assert "a false alarm costs 1 and a miss 5, for texts of which 2.0 % are fraud." in words
    assert "Other rules alone use select.min_precision (0.95)." in words


def test_the_files_of_the_data_are_named_and_nothing_is_invented(make_run, tmp_path):
    make_run()
    assert "Data set sample: pool.jsonl (68 rows). Language models wrote them" in said(read_run())
    assert "4 rows are train, 4 valid, 60 test." in said(read_run())
    params = tmp_path / "params.yaml"
    text = params.read_text(encoding="utf-8").replace("data/sample/pool-2.jsonl", "data/raw/mine.jsonl")
    params.write_text(text, encoding="utf-8")
    assert "Language models" not in said(read_run())


def test_the_sentences_have_the_figures(make_run):
    run = make_run()
    words, block = said(run), run.evaluate["model"]
    assert "The difference is −0.070 (95 % interval −0.090 to −0.050), from the figures before rounding." in words
    assert f"finds {100 * block['recall']:.1f} % of the fraud" in words
    assert f"flags {block['false_alarms_per_1000']:.0f} of 1,000 harmless texts" in words
    assert "At 512 tokens: 3 of 60 in test, 7 of 100 in train" in words
    assert "select.system to combined_cheap" in words
    assert "“first token 您好”, fraud if present" in words
    assert "None: no text of test appears" in words
    assert "Base model a/base, method qlora" in words
    assert len(said(run, "zh").splitlines()) == len(words.splitlines())


def test_leaks_are_counted(make_run):
    assert "60 of 60 texts of test (100.0 %)" in said(make_run(leak="near"))


def test_hostile_texts_stay_text(make_run):
    run = make_run(text=HOSTILE, category=HOSTILE)
    text = page(run)
    parts = Parts(text)
    assert [tag for tag, _ in parts.tags].count("script") == 2
    assert not [tag for tag, _ in parts.tags if tag == "img"]
    assert not [name for _, attrs in parts.tags for name in attrs if name.startswith("on")]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u0007]", text)
    assert "⟨U+202E⟩gpj.exe" in text
    assert "alert" not in "".join(parts.scripts)
    assert json.loads(parts.scripts[0]) == json.loads(json.dumps(slider_data(run)))


def test_the_file_needs_nothing_from_outside(make_run):
    text = page(make_run())
    tags = Parts(text).tags
    outside = {"src", "href", "srcset", "action", "poster", "data", "xlink:href"}
    assert not [(tag, attrs) for tag, attrs in tags if outside & attrs.keys()]
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttpRequest|import\(", text)
    policy = next(attrs["content"] for _, attrs in tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_the_same_figures_give_the_same_bytes_and_nothing_goes_stale(make_run, monkeypatch):
    run = make_run()
    monkeypatch.setattr(sys, "argv", ["report"])
    main()
    written, train = Path("report/index.html"), Path("models/train.json")
    first = written.read_bytes()
    train.write_text(train.read_text(encoding="utf-8").replace("123456.0", "99.0"), encoding="utf-8")  # another machine
    main()
    assert read_run().train["measured"] == {"seconds": 99.0}
    assert Path("metrics/train.json").read_bytes() == train.read_bytes()
    assert Path("metrics/probe.json").read_bytes() == Path("models/probe.json").read_bytes()
    assert written.read_bytes() == first == page(run).encode()


@pytest.mark.parametrize("used", ["combined_cheap", "baseline", "combined"])
def test_the_system_in_use_is_named_and_judged(make_run, tmp_path, used):
    make_run()
    change(tmp_path / "metrics/select.json", lambda values: values.update(system=used))
    change(tmp_path / "metrics/evaluate.json", lambda values: values[used].update(recall=0.123))
    run = read_run()
    words = said(run)
    assert run.used == used
    assert "finds 12.3 % of the fraud" in words
    assert ("predict uses another system" in words) == (used != "combined")
    assert "set select.system to" not in words if used != "combined" else "set select.system to" in words
    assert page(run)


def written(values):
    """As evaluate.mode: generate leaves them: no scores of the models, no combination with them."""
    for system in ("model", "zero_shot"):
        del values[system]["threshold"], values[system]["average_precision"]
    del values["combined"], values["ahead"]["combined"]
    values["ahead"]["model"] = {"f1": -0.1}


def test_written_answers_have_no_threshold(make_run, tmp_path):
    make_run()
    change(tmp_path / "metrics/evaluate.json", written)
    change(tmp_path / "metrics/select.json", lambda values: values.update(system="combined"))
    run = read_run()
    words, text = said(run), page(run)
    assert "can't be compared" in words
    assert "The fine-tuned model finds" in words
    assert "It has no scores here" in words
    assert "threshold would be" not in words
    assert Parts(text).scripts[0] == "null"


def single_class(values):
    """As evaluate leaves a test of harmless texts: decisions only."""
    for system in ("model", "zero_shot", "baseline", "probe", "combined", "combined_cheap"):
        block = values[system]
        for name in ("threshold", "average_precision"):
            del block[name]
        block.update(tp=0, fn=0, precision=0.0, recall=0.0, f1=0.0)
    del values["ahead"], values["best_cheap"]
    values["size"]["fraud_fraction"] = 0.0


def test_a_test_of_harmless_texts_has_false_alarms_alone(make_run, tmp_path):
    make_run()
    change(tmp_path / "metrics/evaluate.json", single_class)
    file = tmp_path / "data/processed/test.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace('"label": true', '"label": false'), encoding="utf-8")
    run = read_run()
    assert not run.labels.any()
    words, text = said(run), page(run)
    assert "The fine-tuned model flags" in words
    assert "finds" not in words
    assert "Fraud found" not in text.partition('class="facts"')[0]


def test_a_further_set_has_its_line_and_table(make_run, tmp_path):
    make_run()

    def add(values):
        block = {"model": {**values["model"], "recall": 0.321}, "size": {"rows": 77}}
        values["further"] = {HOSTILE: block | {"shift": {"rows": 77, "length": {"shifted": True}}}}

    change(tmp_path / "metrics/evaluate.json", add)
    run = read_run()
    assert "77 texts, 50.0 % of them fraud. The fine-tuned model finds 32.1 % of the fraud" in said(run)
    assert "The texts differ from those of valid in length." in said(run)
    assert "这些文本与验证集有别：长度。" in said(run, "zh")
    tags = [tag for tag, _ in Parts(page(run)).tags]
    assert tags.count("script") == 2
    assert "img" not in tags


@pytest.mark.parametrize("fraud", [True, False])
def test_a_further_set_of_one_class_has_one_figure(make_run, tmp_path, fraud):
    make_run()
    counts = {
        "tp": 7,
        "fn": 3,
        "fp": 0,
        "tn": 0,
        "recall": 0.7,
        "recall_low": 0.4,
        "recall_high": 0.9,
        "precision": 1.0,
    }
    if not fraud:
        counts = {"tp": 0, "fn": 0, "fp": 3, "tn": 7, "recall": 0.0, "precision": 0.0, "f1": 0.0}
        counts |= {f"false_alarms_per_1000{end}": each for end, each in (("", 300), ("_low", 100), ("_high", 600))}
    block = {"model": counts, "combined_cheap": counts, "size": {"rows": 10}}
    change(tmp_path / "metrics/evaluate.json", lambda values: values.update(further={"one": block}))
    run = read_run()
    does = "finds 70.0 % of the fraud (95 % interval 40 % to 90 %)."
    if not fraud:
        does = "flags 300 of 1,000 harmless texts (95 % interval 100 to 600)."
    kind = "fraud" if fraud else "harmless"
    assert f"10 texts, all of them {kind}. The fine-tuned model {does} The probe + TF-IDF {does}" in said(run)
    table = further(run)
    assert table.count("<th") - table.count("<thead") == 2
    assert ("70.0\xa0% [40.0\xa0%, 90.0\xa0%]" if fraud else "300 [100, 600]") in table
    assert "–" not in table
    assert figure(counts, "precision") is None


def test_few_rows_without_categories_or_folds(make_run, tmp_path):
    make_run(rows=2, category="")
    file = tmp_path / "data/processed/test.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("日常", ""), encoding="utf-8")
    change(tmp_path / "metrics/folds.json", lambda values: (values.clear(), values.update(pool="none")))
    run = read_run()
    assert "none" not in said(run).lower().replace("none: no text", "")
    assert "out of fold" not in page(run)


def test_a_lead_of_folds_with_other_params_is_marked(make_run, tmp_path):
    make_run()
    assert "make folds adds it" in page(read_run())
    model = {"model": {"tp": 1, "fp": 0, "fn": 0, "tn": 1, "average_precision": 0.9}}
    change(
        tmp_path / "metrics/folds.json", lambda values: values.update(model, collected={"with_present_params": False})
    )
    assert "other parameters than this run" in page(read_run())


def test_an_error_shows_what_moved_it(make_run):
    run = make_run(text="<b>您好。\u2028请转账。")
    text = page(run, marks={"pool.jsonl:1": Mark(6, 11, -1.25)})
    assert "&lt;b&gt;您好。<mark>⟨U+2028⟩请转账。</mark>" in text
    assert "marked −1.2" in text


def test_sentences_are_those_that_moved_towards_the_error(make_run, monkeypatch, tmp_path):
    run = make_run(text="您好。请转账。谢谢。")

    def score(texts, budget, title):
        found = [3.0 * ("请转账" in text) - 2.0 * ("谢谢" in text) for text in texts]
        return lambda: SimpleNamespace(log_odds=np.array(found))

    record = type("Record", (), {"as_read": lambda self, text: text, "max_tokens_per_batch": 9})()
    monkeypatch.setattr(here, "read_selected", lambda folder: record)
    monkeypatch.setattr(here, "load_model_part", lambda *folders: score)
    assert here.sentences_of(run) == {"pool.jsonl:1": Mark(7, 10, -2.0)}  # a miss: what speaks against fraud


def test_another_file_has_commit_and_timings(make_run, monkeypatch, tmp_path):
    make_run()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "metrics"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(here, "sentences_of", lambda run: {})
    monkeypatch.setattr(sys, "argv", ["here"])
    here.main()
    text = (tmp_path / "runs/report.html").read_text(encoding="utf-8")
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert commit in text
    assert "123,456.0 s" in text
    monkeypatch.setattr(sys, "argv", ["here", "--against", "gone"])
    with pytest.raises(UserError, match="gone can't be read"):
        here.main()


def test_an_earlier_run_stands_beside_with_paired_intervals(make_run, monkeypatch, tmp_path):
    run = make_run()
    write_side(tmp_path / "old", signal=1.0)
    monkeypatch.chdir(write_side(tmp_path / "now", seed=3))
    text = here.earlier(run, "../old")
    assert "This run&#x27;s model is better." in text
    assert "400 texts that both tests hold" in text
    assert "train.seed 2 → 3" in text
    cell = re.search(r"average precision</span></td>.*?\[(\S+), (\S+)\]", text)
    low, high = (float(end.replace("−", "-")) for end in cell.groups())
    assert 0 < low < high
    monkeypatch.chdir(write_side(tmp_path / "worse", signal=0.8))
    assert "This run&#x27;s model is worse." in here.earlier(run, "../old")


def test_the_cheapest_threshold_is_kept_of_many():
    rng, n = np.random.default_rng(0), 5000
    labels = rng.random(n) < 0.3
    scores = 1 / (1 + np.exp(-rng.normal(2.0 * labels - 1)))
    run = SimpleNamespace(
        labels=labels, test=labels, evaluate={"model": {"threshold": 0.5}}, scores=lambda system: scores
    )
    kept, order = points(run, "model"), np.argsort(-scores)
    assert len(kept) < MOST_POINTS + 100
    found = zip(scores[order].tolist(), np.cumsum(labels[order]), np.cumsum(~labels[order]), strict=True)
    every = [Point(NO_ALARM, 0, 0), *(Point(at, int(tp), int(fp)) for at, tp, fp in found)]
    for share in (0.01, 0.3, 0.5):
        for alarm, miss in ((1, 1), (5, 1), (1, 5), (1, 77), (0, 1), (1, 0)):
            settings = share, alarm, miss
            best, exact = (costs(run, cheapest(run, some, *settings), *settings) for some in (kept, every))
            assert best.cost == pytest.approx(exact.cost)


def test_corners_are_the_upper_hull():
    every = [Point(0, tp, fp) for fp, tp in ((0, 0), (0, 2), (1, 2), (2, 4), (4, 4), (4, 5))]
    assert corners(every) == [0, 1, 3, 5]


def test_the_slider_starts_at_the_figures_of_evaluate(make_run):
    run = make_run()
    data = json.loads(Parts(page(run)).scripts[0])
    for system, curve in data["systems"].items():
        block = run.evaluate[system]
        assert curve["points"][curve["own"]] == [block["threshold"], block["tp"], block["fp"]]
        assert curve["points"][-1] == [NO_ALARM, 0, 0]  # to the right, thresholds are higher
        assert curve["points"][0][1:] == [block["tp"] + block["fn"], block["fp"] + block["tn"]]


def test_costs_are_per_thousand_texts_at_the_readers_share(make_run):
    run = make_run()
    every, block = points(run, "model"), run.evaluate["model"]
    found = costs(run, every[own_point(run, "model", every)], 0.01, 2, 30)
    assert found.misses == pytest.approx(10 * (1 - block["recall"]))
    assert found.false_alarms == pytest.approx(0.99 * block["false_alarms_per_1000"])
    assert found.cost == pytest.approx(2 * found.false_alarms + 30 * found.misses)
    best = cheapest(run, every, 0.5, 1, 1)
    labels, scores = run.labels, run.scores("model")
    wrong = [((scores >= at) != labels).mean() for at in [*scores, NO_ALARM]]
    assert costs(run, best, 0.5, 1, 1).cost == pytest.approx(1000 * min(wrong))


def test_rows_of_one_unit_count_once():
    happened = np.array([True, True, False, False])
    alone, together = rate("a", happened, np.arange(4)), rate("a", happened, np.array([0, 0, 1, 1]))
    assert alone.share == together.share == 0.5
    assert together.low < alone.low < 0.5 < alone.high < together.high


def test_a_kind_of_few_rows_is_not_named_where_others_have_more():
    units = np.arange(10)
    few = rate("few", np.array([False]), units[:1])
    many = rate("many", np.array([True] * 9 + [False]), units)
    assert outstanding([many, few], most=False) == many
    assert outstanding([few], most=False) == few
    assert outstanding([], most=True) is None


def test_a_missing_file_and_another_test_set_are_named(make_run, tmp_path):
    make_run()
    path = tmp_path / "data/predictions/test.csv"
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match=r"has 59 rows that are not the 60 rows of"):
        read_run()
    (tmp_path / "models/train.json").write_text("[1]")
    with pytest.raises(UserError, match=r"models/train\.json is not as its stage writes it \(found a list, expected"):
        read_run()
    (tmp_path / "models/train.json").write_text("{}")
    (tmp_path / "metrics/evaluate.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics/evaluate\.json is not as its stage writes it"):
        read_run()
    (tmp_path / "metrics/evaluate.json").unlink()
    with pytest.raises(UserError, match=r"metrics/evaluate\.json can't be read"):
        read_run()
