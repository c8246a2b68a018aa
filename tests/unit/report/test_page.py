"""The report in headless Chromium, opened as a file: three widths, two languages, the slider."""

import pytest

from stages.report.page import page as write_page
from stages.report.rates import cheapest, costs, is_few, points
from stages.report.threshold import own_point
from stages.report.words import percent
from tests.unit.report.conftest import HOSTILE

WIDTHS = (360, 820, 1280)


@pytest.fixture
def open_report(browser, tmp_path):
    """Opens a run's report without a network. No error may appear in its console, and it may ask for nothing."""
    contexts, errors, asked = [], [], []

    def start(run, width=1280, locale="en-US"):
        (tmp_path / "report.html").write_text(write_page(run), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 800}, locale=locale, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    assert errors == []
    assert {url.partition(":")[0] for url in asked} == {"file"}
    assert len(asked) == len(contexts)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_lies_beside_the_screen(open_report, make_run, width):
    page = open_report(make_run(text=HOSTILE * 3, category=HOSTILE), width)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_browsers_language_comes_first_and_can_be_switched(open_report, make_run):
    page = open_report(make_run(), locale="zh-CN")
    assert page.locator(".headline").inner_text().startswith("不要上线微调模型")
    page.get_by_role("button", name="English").click()
    assert page.locator(".headline").inner_text().startswith("Do not ship the fine-tuned model")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("#system option:checked").inner_text() == "fine-tuned model"


def test_a_print_has_all_parameters_and_the_panel_without_its_controls(open_report, make_run):
    page = open_report(make_run(text=HOSTILE, category=HOSTILE))
    parameter = page.get_by_text("train.learning_rate", exact=True)
    shown = "node => node.checkVisibility({contentVisibilityAuto: true})"
    controls, values = ("#threshold", "#own", "#cheapest"), ("#threshold-value", "#cost", "#share", "#system")
    assert all(page.locator(each).is_visible() for each in controls)
    assert not parameter.evaluate(shown)
    page.emulate_media(media="print")
    assert not any(page.locator(each).is_visible() for each in controls)
    assert all(page.locator(each).is_visible() for each in values)
    assert parameter.evaluate(shown)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_slider_computes_what_python_does(open_report, make_run):
    run = make_run()
    page, every = open_report(run), points(run, "model")

    def shown():
        return [float(page.locator(f"#{name}").inner_text()) for name in ("alarms", "false-alarms", "misses", "cost")]

    def expected(point, *settings):
        found = costs(run, point, *settings, bound=True)
        return pytest.approx([found.alarms, found.false_alarms, found.misses, found.cost], abs=0.051)

    own = every[own_point(run, "model", every)]
    assert shown() == expected(own, 0.5, 1, 1)
    page.locator("#share").fill("1")
    page.locator("#false-alarm").fill("3")
    page.locator("#miss").fill("20")
    assert shown() == expected(own, 0.01, 3, 20)
    page.locator("#cheapest").click()
    assert shown() == expected(cheapest(run, every, 0.01, 3, 20), 0.01, 3, 20)
    page.locator("#system").select_option("baseline")
    other = points(run, "baseline")
    assert shown() == expected(other[own_point(run, "baseline", other)], 0.01, 3, 20)


def test_few_false_alarms_are_shown_as_a_bound_of_the_higher_thresholds(open_report, make_run):
    run = make_run()
    page, every = open_report(run), points(run, "model")
    page.locator("#share").fill("1")
    for at, point in enumerate(reversed(every)):
        page.locator("#threshold").fill(str(at))
        found = costs(run, point, 0.01, 1, 1, bound=True)
        assert page.locator(".bound").first.is_visible() == is_few(point)
        right = page.locator("#right").inner_text()
        assert right == (percent(found.right) if point.tp + point.fp else "–")
    assert page.locator("#threshold-value").inner_text() == "> 1"


def test_a_number_outside_its_range_is_put_on_the_edge(open_report, make_run):
    page = open_report(make_run())
    for name, given, kept in (
        ("share", "250", "100"),
        ("share", "-3", "0"),
        ("miss", "-1", "0"),
        ("miss", "2.5", "2.5"),
    ):
        page.locator(f"#{name}").fill(given)
        assert page.locator(f"#{name}").input_value() == kept
    page.locator("#share").fill("")
    page.locator("#share").blur()
    assert page.locator("#share").input_value() == "50"


def test_the_ladder_fits_a_narrow_screen(open_report, make_run):
    page = open_report(make_run(), 800)
    table = page.locator(".systems").first
    assert table.evaluate("node => node.offsetWidth - node.parentNode.clientWidth") <= 0
