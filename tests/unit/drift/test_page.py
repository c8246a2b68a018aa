"""drift.html shows what drift.json holds, and nothing in a text can change it."""

import re

import pytest

from stages.drift.compare import compare_all, report
from stages.drift.page import page
from tests.unit.drift.made import OTHERS, batch

HOSTILE = "</script><script>alert(1)</script><img src=http://evil.example/a.png>\u202e"


@pytest.fixture(scope="module")
def values(reference):
    batches = [batch(40, 5, "like"), batch(40, 6, "other", words=OTHERS), batch(5, 7, "few")]
    return report(reference, compare_all(reference, batches, 0.05), 0.05)


def test_verdict_and_files_are_shown_in_both_languages(values):
    html = page(values)
    assert "1 of 2 files differ from train and valid" in html
    assert "2 个文件中有 1 个" in html
    assert html.count('<section class="card alarm">') == 2  # the verdict and the file
    assert html.count('<section class="card calm">') == 1
    assert "too few texts" in html


def test_the_page_asks_for_nothing(values):
    html = page(values)
    assert "default-src 'none'" in html
    assert not re.search(r"(src|href)\s*=|url\(|@import", html)


def test_names_and_ngrams_are_escaped(values):
    files = values["files"] | {HOSTILE: values["files"]["like"] | {"ngrams": {"new": {HOSTILE: 1.0}, "train": {}}}}
    html = page(values | {"files": files})
    assert "<img" not in html
    assert html.count("<script>") == 1
    assert "\u202e" not in html


def test_nothing_compared_is_no_good_news(values):
    html = page(values | {"files": {"few": values["files"]["few"]}, "files_compared": 0})
    assert "Nothing can be said" in html
    assert "calm" not in html.partition("<body>")[2]


def test_it_works_in_a_browser(browser, values, tmp_path):
    (tmp_path / "drift.html").write_text(page(values), encoding="utf-8")
    context = browser.new_context(viewport={"width": 360, "height": 800}, locale="zh-CN", offline=True)
    shown, errors = context.new_page(), []
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.goto((tmp_path / "drift.html").as_uri())
    assert shown.locator("h1").inner_text() == "诈骗分类器：新文本变了吗？"
    shown.get_by_role("button", name="English").click()
    assert shown.locator("h1").inner_text() == "Fraud classifier: have the texts changed?"
    assert shown.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert errors == []
    context.close()
