"""The page in headless Chromium, at the width of a desktop and of a phone, in both languages."""

import json
import re

import pytest

from stages.serve.app import PAGE
from tests.conftest import ROOT

SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}
TEXT = "您好，这里是市公安局。请在今天下午五点前把资金转到安全账户核查。\n如有疑问请拨打 12345。"


@pytest.fixture(scope="module")
def server(served, tmp_path_factory):
    from benchmarks.server import ServerProcess

    folder = tmp_path_factory.mktemp("page")
    files = ["--audit-folder", folder / "audit", "--verdicts", folder / "reviewed.jsonl", "--audit", "text"]
    with ServerProcess(*files, folder=served) as started:
        started.verdicts = folder / "reviewed.jsonl"
        yield started


@pytest.fixture
def open_page(browser, server):
    """Opens the page in a browser of some size and language. No error may appear in its console."""
    contexts, errors = [], []

    def start(size: str = "desktop", locale: str = "en-US", **given):
        context = browser.new_context(viewport=SIZES[size], locale=locale, **given)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(server.url)
        page.get_by_text(re.compile("baseline ·")).wait_for()
        return page

    yield start
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def file(tmp_path):
    lines = (ROOT / "data/sample/pool.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    path = tmp_path / "new.jsonl"
    rows = [{key: json.loads(line).get(key, "") for key in ("input", "group")} for line in lines]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def overflow(page) -> int:
    """How many pixels of the page lie beside the screen."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("size", SIZES)
def test_a_text_gets_its_verdict_probability_and_sentences(open_page, classifier, size):
    page = open_page(size)
    page.get_by_label("Text to check").fill(TEXT)
    page.get_by_role("button", name="Check text").click()
    page.locator("#result").wait_for()
    probability = classifier.predict_proba([TEXT])[0, 1]
    assert page.locator("#probability").inner_text() == f"{100 * probability:.1f}%"
    assert page.locator("#badge").inner_text() == ("Fraud" if probability >= 0.4 else "Legitimate")
    marks = page.locator("#sentences mark")
    expected = classifier.explain(TEXT)
    assert marks.all_inner_texts() == [sentence.text.strip() for sentence in expected]
    towards = [mark.get_attribute("class").startswith("towards") for mark in marks.all()]
    assert towards == [sentence.effect > 0 for sentence in expected]
    assert page.locator("#sentences").inner_text().replace("\u2060", "").startswith(expected[0].text.strip())
    assert overflow(page) == 0


def test_the_threshold_changes_verdict_and_figures(open_page, server):
    page = open_page()
    page.get_by_label("Text to check").fill(TEXT)
    page.get_by_label("Text to check").press("Control+Enter")
    page.locator("#result").wait_for()
    valid = server.call("/v1/model")["valid"]
    slider = page.get_by_label("A text is called fraud")
    for threshold in (0.0, 0.45, 0.995):
        slider.fill(str(threshold))
        at = next((n for n, value in enumerate(valid["threshold"]) if value >= threshold), None)
        recall, rate = (0, 0) if at is None else (valid["recall"][at], valid["false_alarm_rate"][at])
        share = 0.2
        page.get_by_label("Share of fraud").fill("20")
        alarms = share * recall + (1 - share) * rate
        assert page.locator("#recall").inner_text() == f"{100 * recall:.1f}%"
        assert page.locator("#alarms").inner_text() == f"{1000 * alarms:.0f}"
        assert page.locator("#precision").inner_text() == (f"{100 * share * recall / alarms:.1f}%" if alarms else "–")
        probability = float(page.locator("#probability").inner_text().strip("%")) / 100
        assert page.locator("#badge").inner_text() == ("Fraud" if probability >= threshold else "Legitimate")
    page.get_by_role("button", name="The model's own").click()
    assert page.locator("#threshold-value").inner_text() == "0.400"


def test_a_file_is_classified_reviewed_by_keys_and_its_verdicts_kept(open_page, classifier, server, file):
    page = open_page()
    page.set_input_files("#picker", file)
    page.get_by_text("40 of 40 texts").wait_for()
    texts = [json.loads(line)["input"] for line in file.read_text(encoding="utf-8").splitlines()]
    flagged = int(classifier.predict(texts).sum())
    assert f"{flagged} called fraud" in page.locator("#batch-summary").inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download results").click()
    rows = [json.loads(line) for line in download.value.path().read_text(encoding="utf-8").splitlines()]
    assert [row["label"] for row in rows] == classifier.predict(texts).tolist()
    page.get_by_role("button", name="Review these").click()
    shown = []
    for key in "fls":
        page.locator("#item").wait_for()
        shown.append(page.locator("#item-text").text_content())
        page.keyboard.press(key)
        page.wait_for_selector(f"#item-head:has-text('{40 - len(shown)} left')")
    kept = [json.loads(line) for line in server.verdicts.read_text(encoding="utf-8").splitlines()]
    assert [(row["input"], row["label"]) for row in kept] == [(shown[0], True), (shown[1], False)]
    assert all(row["source"].startswith("new.jsonl:") and row["time"] and row["group"] for row in kept)
    distance = abs(classifier.log_odds(texts) - (-0.405465))
    assert shown[0] == texts[int(distance.argmin())]
    page.keyboard.press("u")  # the skipped text
    page.wait_for_selector("#item-head:has-text('38 left')")
    page.keyboard.press("u")
    page.wait_for_selector("#item-head:has-text('39 left')")
    assert page.locator("#item-text").text_content() == shown[1]
    assert len(server.verdicts.read_text(encoding="utf-8").splitlines()) == 1


def test_letters_that_are_typed_are_no_verdicts(open_page, server, file):
    page = open_page()
    page.set_input_files("#picker", file)
    page.get_by_text("40 of 40 texts").wait_for()
    page.get_by_role("button", name="Review these").click()
    page.locator("#item").wait_for()
    before = page.locator("#item-head").inner_text()
    page.get_by_label("Probability from").focus()
    page.keyboard.press("f")
    page.keyboard.press("Control+s")
    assert page.locator("#item-head").inner_text() == before


@pytest.mark.parametrize("size", SIZES)
def test_chinese_by_the_browsers_language_and_english_by_choice(open_page, size):
    page = open_page(size, "zh-CN")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert page.get_by_role("heading", level=1).inner_text() == "诈骗文本识别"
    page.get_by_role("tab", name="复核").click()
    assert overflow(page) == 0
    page.get_by_role("button", name="English").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Fraud or not"
    page.reload()
    assert page.get_by_role("heading", level=1).inner_text() == "Fraud or not"  # the choice is kept


def test_both_languages_have_all_words_and_the_page_uses_no_other():
    words = (PAGE / "words.js").read_text(encoding="utf-8")
    english, chinese = words.split("  zh: {")
    keys = [set(re.findall(r"\b(\w+): \"", part)) for part in (english, chinese.partition("};")[0])]
    assert keys[0] == keys[1]
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    used = set(re.findall(r'data-(?:word|label|placeholder)="(\w+)"', page))
    used |= set(re.findall(r'word\("(\w+)"', (PAGE / "page.js").read_text(encoding="utf-8")))
    assert used <= keys[0]


def test_all_controls_have_names_and_the_keyboard_reaches_the_views(open_page):
    page = open_page()
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea")]
        .filter((node) => !node.matches("[aria-hidden=true]") && !node.textContent.trim() && !node.labels?.length
          && !node.ariaLabel).map((node) => node.id)"""
    )
    assert unnamed == []
    page.get_by_role("tab", name="Check").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="File").get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "text"
