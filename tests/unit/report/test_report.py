"""The report: what its sentences say, that texts can't change it, and that it needs nothing from outside."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stages.errors import UserError
from stages.report.__main__ import main
from stages.report.page import page, slider_data
from stages.report.rates import NO_ALARM, cheapest, costs, outstanding, points, rate
from stages.report.read import read_run
from stages.report.threshold import own_point
from stages.report.verdict import headline, sentences, standing
from tests.unit.report.conftest import HOSTILE


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
    return "\n".join(getattr(words, language) for words in [headline(run), *sentences(run)])


@pytest.mark.parametrize(
    ("ahead", "expected", "english", "chinese"),
    [
        ((0.05, 0.03, 0.07), "ahead", "fine-tuned model is better than", "微调模型优于"),
        ((-0.07, -0.09, -0.05), "behind", "fine-tuned model is worse than", "微调模型不如"),
        ((0.01, -0.03, 0.05), "not shown", "It is not shown whether", "尚不能说明"),
        ((0.0, -0.01, 0.01), "equal", "within the margin of 0.02", "容差 0.02 之内"),
        ((0.1,), "unknown", "can't be compared", "无法比较"),
    ],
)
def test_the_headline_says_where_the_model_stands(make_run, ahead, expected, english, chinese):
    run = make_run(ahead=ahead)
    assert standing(run) == expected
    assert english in headline(run).en
    assert chinese in headline(run).zh
    assert "probe + TF-IDF" in headline(run).en


def test_the_sentences_have_the_figures(make_run):
    run = make_run()
    words, block = said(run), run.evaluate["model"]
    assert "The difference is −0.070 (95 % interval −0.090 to −0.050)" in words
    assert f"finds {100 * block['recall']:.1f} % of the fraud" in words
    assert f"Of 1,000 harmless texts it flags {block['false_alarms_per_1000']:.0f}" in words
    assert "Texts cut at 512 tokens: 3 of 60 in test, 7 of 100 in train" in words
    assert "select.system to combined_cheap" in words
    assert "“first token 您好” (fraud if present)" in words
    assert "Nothing leaks" in words
    assert "missed most is “刷单”" in words
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
    written, train = Path("report/index.html"), Path("metrics/train.json")
    first = written.read_bytes()
    train.write_text(train.read_text(encoding="utf-8").replace("123456.0", "99.0"), encoding="utf-8")  # another machine
    assert read_run().train["measured"] == {"seconds": 99.0}
    main()
    assert written.read_bytes() == first == page(run).encode()


def test_another_file_has_commit_timings_and_an_earlier_run(make_run, monkeypatch, tmp_path):
    make_run()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "metrics"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(sys, "argv", ["report", "--out", "runs/report.html", "--against", "HEAD"])
    main()
    text = (tmp_path / "runs/report.html").read_text(encoding="utf-8")
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert commit in text
    assert "123,456.0" in text
    assert "Beside HEAD" in text
    monkeypatch.setattr(sys, "argv", ["report", "--out", "runs/report.html", "--against", "nowhere"])
    with pytest.raises(UserError, match="nowhere"):
        main()


def test_the_slider_starts_at_the_figures_of_evaluate(make_run):
    run = make_run()
    data = json.loads(Parts(page(run)).scripts[0])
    for system, curve in data["systems"].items():
        block = run.evaluate[system]
        assert curve["points"][curve["own"]] == [block["threshold"], block["tp"], block["fp"]]
        assert curve["points"][0] == [NO_ALARM, 0, 0]
        assert curve["points"][-1][1:] == [block["tp"] + block["fn"], block["fp"] + block["tn"]]


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
    (tmp_path / "metrics/evaluate.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics/evaluate\.json is not as its stage writes it"):
        read_run()
    (tmp_path / "metrics/evaluate.json").unlink()
    with pytest.raises(UserError, match=r"metrics/evaluate\.json can't be read"):
        read_run()
