"""The page in headless Chromium: draws, sorts, fits a phone, and asks for nothing."""

import dataclasses
import shutil

import numpy as np
import pytest

from tests.kronos_strategies.report.colours import contrast

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402 (behind the skip)

# Of each chart: lines and bars that are more than a dot.
DRAWN = """
return [...document.querySelectorAll(".chart")].map((chart) =>
  [...chart.querySelectorAll(".cartesianlayer path.js-line, .cartesianlayer .point path")]
    .filter((path) => path.getAttribute("d").length > 10).length)
"""
ROWS = "return [...document.querySelectorAll('#comparison tbody th')].map((cell) => cell.textContent)"

STYLE = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
REQUESTED = "return performance.getEntriesByType('resource').map((entry) => entry.name)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium with its chromedriver; apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={profile}", "--window-size=1280,900",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options, webdriver.ChromeService(executable_path=driver))
    yield session
    session.quit()


@pytest.fixture
def opened(browser, report, tmp_path):
    """A function that saves a report and opens its page, as wide as asked."""

    def open_page(width: int = 1280, **changes: object) -> webdriver.Chrome:
        page = dataclasses.replace(report, **changes).save(tmp_path)[0]
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.get(page.as_uri())
        # plotly draws after the page has loaded; a busy machine takes its time.
        WebDriverWait(browser, 60).until(lambda page: all(page.execute_script(DRAWN)))
        return browser

    return open_page


def show_as(page, scheme: str) -> None:
    """Let the reader prefer light or dark."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def test_every_chart_is_drawn_without_a_complaint_or_a_request(opened):
    page = opened()
    assert page.execute_script(DRAWN) == [2, 6, 4, 3, 6, 1]  # lines, or a bar for each month
    assert page.get_log("browser") == []
    assert page.execute_script(REQUESTED) == []


def test_the_table_sorts_on_click_with_the_undefined_last(opened, report):
    names = ["Kronos", "12-1 momentum", "5-day reversal", "low volatility"]
    comparison = report.comparison.reindex(names)
    comparison["rank_ic"] = [0.03, np.nan, -0.2, 0.1]
    page = opened(comparison=comparison)
    assert page.execute_script(ROWS) == names
    by_name, _, by_rank_ic, *_ = page.find_elements("css selector", "#comparison thead button")
    by_rank_ic.click()
    assert page.execute_script(ROWS) == ["low volatility", "Kronos", "5-day reversal", "12-1 momentum"]
    by_rank_ic.click()
    assert page.execute_script(ROWS) == ["5-day reversal", "Kronos", "low volatility", "12-1 momentum"]
    by_name.click()
    assert page.execute_script(ROWS) == ["12-1 momentum", "5-day reversal", "Kronos", "low volatility"]
    sorted_by = page.find_elements("css selector", "#comparison th[aria-sort]")
    assert [head.get_attribute("aria-sort") for head in sorted_by] == ["ascending"]


def test_hostile_names_stay_text(opened, report):
    hostile = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
    renamed = report.result.benchmarks.rename(columns={"benchmark": hostile})
    page = opened(title=hostile, result=dataclasses.replace(report.result, benchmarks=renamed))
    assert page.title == hostile
    assert page.find_elements("css selector", "main img, main b") == []
    legend = page.find_elements("css selector", "#wealth .legendtext")
    assert hostile in [entry.text for entry in legend]


def test_a_phone_needs_no_sideways_scrolling(opened):
    page = opened(width=390)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    boxes = page.execute_script(
        "return [...document.querySelectorAll('.table-box')].map((box) => box.scrollWidth - box.clientWidth)"
    )
    assert max(boxes) <= 0
    assert min(page.execute_script(DRAWN)) > 0


def test_text_is_readable_light_and_dark(opened):
    page = opened()
    for scheme in ("light", "dark"):
        show_as(page, scheme)
        paper = page.execute_script(STYLE, ".chart-box", "backgroundColor")
        assert (contrast(paper, "#ffffff") < 1.5) == (scheme == "light")
        for selector, property_ in (
            ("h1", "color"), (".verdict .eyebrow", "color"), (".warnings h2", "color"), (".tiles dt", "color"),
            ("#wealth .xtick text", "fill"), ("#wealth .legendtext", "fill"),
        ):  # fmt: skip
            ink = page.execute_script(STYLE, selector, property_)
            assert contrast(ink, paper) >= 4.5, (scheme, selector)
