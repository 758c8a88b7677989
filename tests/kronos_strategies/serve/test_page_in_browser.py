"""The page in headless Chromium: forecasts, ranks, cancels, fits a phone, and follows the reader's colors."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kronos_strategies.forecast_view.pictures import render_page
from kronos_strategies.serve.forecasts import ForecastRequest, Forecasts
from kronos_strategies.serve.jobs import Job
from tests.kronos_strategies.report.colors import contrast

from .conftest import HOSTILE, LIMIT, NAMES, asked

pytest.importorskip("selenium")
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.integration

STYLE = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
FOCUSED = "const e = document.activeElement; return e.id || e.name || e.textContent"
SELECT = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
REQUESTED = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
WIDER = """
return [...document.querySelectorAll("body *")]
  .filter((each) => !each.closest(".table-box, svg") && each.getBoundingClientRect().right > innerWidth + 0.5)
  .map((each) => each.outerHTML.slice(0, 80))
"""


@pytest.fixture
def opened(browser, served):
    """A function that opens the page, as wide and in the colors asked for, and waits for its choices."""

    def open_page(width: int = 1280, scheme: str = "light"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
        phone = width < 600
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": phone}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        browser.get_log("browser")  # of the pages before
        browser.get(served)
        until(browser, lambda: browser.find_element("id", "start").is_enabled())
        choose(browser, instrument="AAA")
        return browser

    return open_page


def until(page, condition) -> None:
    from selenium.webdriver.support.ui import WebDriverWait  # heavy, and of browsers alone

    WebDriverWait(page, LIMIT, 0.05).until(lambda _: condition())


def status(page) -> str:
    return page.find_element("id", "status").text


def choose(page, **fields: str) -> None:
    for name, value in fields.items():
        element = page.find_element("name", name)
        if element.tag_name == "select":
            page.execute_script(SELECT, element, value)
        else:
            element.clear()
            element.send_keys(value)


def forecast(page) -> None:
    choose(page, horizon="5", samples="19", lookback="30")
    page.find_element("id", "start").click()
    until(page, lambda: status(page).startswith("Done"))


def ranked(page) -> list[str]:
    return [each.text for each in page.find_elements("css selector", "#table tbody th")]


def test_a_forecast_is_drawn_and_ranked_without_a_console_message_or_another_host(opened, served):
    page = opened()
    assert page.find_element("name", "rank").is_selected()
    forecast(page)
    assert sorted(ranked(page)) == sorted(NAMES)
    assert page.find_element("id", "chart-title").text.startswith("AAA, forecast as of")
    assert len(page.find_elements("css selector", "#chart .boxlayer path.box, #chart .js-line")) > 40
    assert page.find_element("id", "table-csv").get_attribute("href").endswith("/table.csv")
    assert page.get_log("browser") == []
    requested = page.execute_script(REQUESTED)
    assert len(requested) > 5
    assert all(address.startswith(f"{served}/") for address in requested)


def test_an_instrument_of_the_table_is_drawn_on_request(opened):
    page = opened()
    forecast(page)
    button = next(b for b in page.find_elements("css selector", "#table button") if b.text == "BBB")
    button.send_keys(Keys.ENTER)
    until(page, lambda: page.find_element("id", "chart-title").text.startswith("BBB,"))
    current = page.find_elements("css selector", "#table tr[aria-current] th")
    assert [each.text for each in current] == ["BBB"]


def test_held_back_bars_are_drawn_and_scored(opened):
    page = opened()
    choose(page, horizon="5")
    page.find_element("id", "hold-back").click()
    until(page, lambda: page.find_element("name", "as_of").get_attribute("value"))
    forecast(page)
    assert page.find_element("id", "settings").text.startswith("5 bars held back: MAE")
    assert "held back" in [each.text for each in page.find_elements("css selector", "#chart .legendtext")]
    page.find_element("id", "last-bar").click()
    forecast(page)
    assert "held back" not in page.find_element("id", "settings").text


def test_hostile_names_stay_text(opened):
    page = opened()
    choose(page, instrument=HOSTILE)
    forecast(page)
    assert page.title == "Kronos"
    assert HOSTILE in ranked(page)
    assert page.find_element("id", "chart-title").text.startswith(HOSTILE)
    assert page.find_elements("css selector", "main img, #table b, h2 b") == []
    assert page.get_log("browser") == []


def test_a_running_forecast_shows_its_progress_and_is_canceled(opened, gate: threading.Event):
    page = opened()
    gate.clear()
    choose(page, horizon="5", samples="19", lookback="30")
    page.find_element("id", "start").click()
    until(page, lambda: ranked(page) == ["AAA"])
    assert page.find_element("id", "progress").is_displayed()
    assert not page.find_element("id", "start").is_enabled()
    page.find_element("id", "cancel").click()
    until(page, lambda: status(page) == "Canceling…")
    gate.set()
    until(page, lambda: status(page).startswith("Canceled: the table has the chosen instrument only"))
    assert ranked(page) == ["AAA"]
    assert not page.find_element("id", "progress").is_displayed()
    assert page.find_element("id", "start").is_enabled()
    assert page.get_log("browser") == []
    forecast(page)
    assert sorted(ranked(page)) == sorted(NAMES)


def test_an_error_is_one_sentence_on_the_page(opened):
    page = opened()
    choose(page, lookback="400", horizon="5", samples="19")
    page.find_element("id", "start").click()
    until(page, lambda: "failed" in (page.find_element("id", "status").get_attribute("class") or ""))
    assert (
        status(page)
        == "No instrument has 400 bars, the longest has 80. Pass earlier bars or a shorter lookback."
    )
    assert page.find_element("id", "start").is_enabled()


def test_intraday_bars_are_dated_by_time(opened):
    page = opened()
    choose(page, data="1")
    until(page, lambda: page.find_element("name", "as_of").get_attribute("type") == "datetime-local")
    until(page, lambda: page.find_element("id", "hold-back").is_enabled())
    assert not page.find_element("name", "rank").is_displayed()  # there is one instrument
    choose(page, horizon="5")
    page.find_element("id", "hold-back").click()
    until(page, lambda: page.find_element("name", "as_of").get_attribute("value"))
    forecast(page)
    assert page.find_element("id", "settings").text.startswith("5 bars held back")


def test_the_keyboard_reaches_everything_in_order_and_focus_is_visible(opened):
    page = opened()
    page.find_element("css selector", "body").click()
    visited = []
    for _ in range(40):
        page.switch_to.active_element.send_keys(Keys.TAB)
        name = page.execute_script(FOCUSED)
        if visited and name == visited[-1]:
            continue  # the parts of a date
        visited.append(name)
        assert page.execute_script(STYLE, ":focus", "outlineStyle") != "none", name
        if name.strip() == "Reports and comparisons":
            break
    assert [name.strip() for name in visited] == [
        "data", "instrument", "as-of", "hold-back", "last-bar", "horizon", "samples", "model", "calibration",
        "lookback", "rank", "start", "Reports and comparisons",
    ]  # fmt: skip
    choose(page, horizon="5", samples="19")
    page.find_element("name", "samples").send_keys(Keys.ENTER)
    until(page, lambda: status(page).startswith("Done"))


def test_every_field_has_a_label(opened):
    page = opened()
    fields = page.find_elements("css selector", "input, select, progress")
    unnamed = [field.tag_name for field in fields if not field.accessible_name]
    assert (len(fields), unnamed) == (10, ["progress"])  # which is hidden


@pytest.mark.parametrize("width", [390, 320, 768])
def test_a_narrow_screen_scrolls_tables_in_their_boxes_and_never_the_page(width, opened):
    page = opened(width=width)
    choose(page, instrument=HOSTILE)
    forecast(page)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.execute_script(WIDER) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(opened, scheme):
    page = opened(scheme=scheme)
    forecast(page)
    paper = page.execute_script(STYLE, ".chart-box", "backgroundColor")
    assert (contrast(paper, "#ffffff") < 1.5) == (scheme == "light")
    for selector, property_ in (
        ("form label", "color"), ("form select", "color"), ("form small", "color"), ("#status", "color"),
        ("#chart-title", "color"), ("#settings li", "color"), ("#table td", "color"), ("#table button", "color"),
        ("summary", "color"), ("#chart .xtick text", "fill"), ("#chart .legendtext", "fill"),
    ):  # fmt: skip
        ink = page.execute_script(STYLE, selector, property_)
        assert contrast(ink, paper) >= 4.5, (scheme, selector)
    action = [page.execute_script(STYLE, "#start", name) for name in ("color", "backgroundColor")]
    assert contrast(*action) >= 4.5


def test_reports_are_listed_and_open_in_a_sandbox_where_they_still_draw(
    opened, forecasts: Forecasts, tmp_path: Path
):
    job = Job()
    forecasts.run(ForecastRequest(**asked()), job)
    page_of_forecast = render_page([job.result.drawn.chart("AAA")])
    (tmp_path / "reports" / "AAA.html").write_text(page_of_forecast, encoding="utf-8")
    page = opened()
    page.find_element("css selector", "summary").click()
    until(page, lambda: page.find_elements("css selector", "#reports-table a"))
    link = page.find_element("css selector", "#reports-table a")
    assert link.text == "AAA"
    page.get(link.get_attribute("href"))
    until(page, lambda: page.find_elements("css selector", "#chart-0 .boxlayer path"))
    assert page.execute_script("return self.origin") == "null"
    assert page.get_log("browser") == []
