"""The page in headless Chromium: draws, sorts, chooses, fits a phone, prints, and asks for nothing."""

import base64
import dataclasses

import pytest

from kronos_strategies.report.export import save_report
from tests.kronos_strategies.report.colors import contrast

pytest.importorskip("selenium")

pytestmark = pytest.mark.integration

# Of each chart: lines, bars and marks that are more than a dot.
DRAWN = """
return Object.fromEntries([...document.querySelectorAll(".chart")].map((chart) => [chart.id,
  [...chart.querySelectorAll(".cartesianlayer :is(path.js-line, .point path, path.point)")]
    .filter((path) => path.getAttribute("d").length > 10).length]))
"""
NEAR = "return [...document.querySelectorAll('.chart')].filter((chart) => chart._fullLayout).length"
COLUMN = """
return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].map((row) => row.cells[arguments[1]].dataset.key)
"""
STYLE = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
REQUESTED = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
PRINT = "dispatchEvent(new Event('beforeprint'));"


@pytest.fixture(scope="module")
def saved(report, tmp_path_factory):
    """The page of the whole report."""
    return save_report(report, tmp_path_factory.mktemp("saved"))[0]


@pytest.fixture
def opened(browser, report, saved, tmp_path):
    """A function that opens the page, as wide as asked, of the report with some changes."""

    def open_page(width: int = 1280, **changes: object):
        path = save_report(dataclasses.replace(report, **changes), tmp_path)[0] if changes else saved
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
        phone = width < 600
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": phone}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        browser.get(path.as_uri())
        return browser

    return open_page


def look_at(page, chart: str) -> None:
    """Scroll there; plotly draws once a chart has come near, and a busy machine takes its time."""
    from selenium.webdriver.support.ui import WebDriverWait  # heavy, and of browsers alone

    page.execute_script("document.getElementById(arguments[0]).scrollIntoView({ block: 'center' })", chart)
    WebDriverWait(page, 60, 0.05).until(lambda _: page.execute_script(DRAWN)[chart])


def selects(page, chart: str) -> list:
    """The drop-downs of a chart."""
    from selenium.webdriver.support.ui import Select

    return [Select(each) for each in page.find_elements("css selector", f"select[data-dropdowns='{chart}']")]


def scroll_through(page) -> dict[str, int]:
    """Look at every chart, and count what each one shows."""
    for chart in page.execute_script(DRAWN):
        look_at(page, chart)
    return page.execute_script(DRAWN)


def show_as(page, scheme: str) -> None:
    """Let the reader prefer light or dark."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def test_every_chart_is_drawn_without_a_console_message_or_a_request(opened):
    page = opened()
    drawn = scroll_through(page)
    assert len(drawn) >= 30
    assert min(drawn.values()) > 0
    assert page.get_log("browser") == []
    assert page.execute_script(REQUESTED) == []


def test_charts_are_drawn_when_they_come_close_to_the_screen(opened):
    page = opened()
    page.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 200))")
    assert page.execute_script(NEAR) < len(page.find_elements("css selector", ".chart")) / 2


def test_every_table_sorts_by_every_column_with_the_undefined_last(opened):
    page = opened()
    tables = page.find_elements("css selector", "table.sortable")
    assert len(tables) >= 8
    for table in tables:
        name = table.get_attribute("id")
        for place, head in enumerate(table.find_elements("css selector", "thead th")):
            numbers = "number" in (head.get_attribute("class") or "")
            shown = []
            for _ in range(2):
                page.execute_script("arguments[0].click()", head.find_element("css selector", "button"))
                keys = page.execute_script(COLUMN, name, place)
                known = [float(key) if numbers else key for key in keys if key]
                assert keys[len(known) :] == [""] * (len(keys) - len(known)), (name, place)
                shown.append(known)
            first = sorted(shown[0], reverse=numbers, key=None if numbers else str.casefold)
            assert shown[0] == first, (name, place)
            assert shown[1] == first[::-1] or len(set(first)) < len(first), (name, place)
            assert head.get_attribute("aria-sort") == ("ascending" if numbers else "descending")
        assert len(table.find_elements("css selector", "th[aria-sort]")) == 1


def test_the_drop_downs_choose_the_fan_of_an_instrument_and_a_date(opened, report):
    page = opened()
    look_at(page, "fan")
    instrument, date = selects(page, "fan")
    fans = report.distribution.fan_charts
    instrument.select_by_index(2)
    date.select_by_index(3)
    chosen = fans[
        (fans["instrument"] == instrument.first_selected_option.text)
        & (fans["datetime"].dt.strftime("%Y-%m-%d") == date.first_selected_option.text)
    ]
    history = chosen[chosen["step"] <= 0].sort_values("step")["close"]
    y = page.execute_script(
        "return [...document.getElementById('fan')._fullData.find((trace) => trace.name === 'historical').y]"
    )
    assert y == pytest.approx(list(history), rel=1e-6)


def test_the_drop_down_chooses_the_metric_of_a_difference(opened, report):
    page = opened()
    look_at(page, "difference")
    (metric,) = selects(page, "difference")
    metric.select_by_visible_text("crps_h5, lower is better")
    table = report.versions.table
    rows = table[(table["metric"] == "crps_h5") & table["difference"].notna()]
    x = page.execute_script("return [...document.getElementById('difference')._fullData[0].x]")
    assert x == pytest.approx(list(rows["difference"]), rel=1e-6)


def test_a_missing_fan_chart_is_stated(opened, report):
    fans = report.distribution.fan_charts
    names, dates = sorted(fans["instrument"].unique()), sorted(fans["datetime"].unique())
    without = fans[(fans["instrument"] != names[0]) | (fans["datetime"] != dates[1])]
    page = opened(distribution=dataclasses.replace(report.distribution, fan_charts=without))
    look_at(page, "fan")
    _, date = selects(page, "fan")
    date.select_by_index(1)
    assert "none" in page.find_element("id", "fan").get_attribute("class").split()
    date.select_by_index(2)
    assert page.execute_script(DRAWN)["fan"] > 0


def test_hostile_names_stay_text(opened, report):
    hostile = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
    result = report.portfolio.result
    renamed = dataclasses.replace(result, benchmarks=result.benchmarks.rename(columns={"benchmark": hostile}))
    fans = report.distribution.fan_charts
    named = fans.assign(
        instrument=fans["instrument"].where(fans["instrument"] != fans["instrument"].iloc[0], hostile)
    )
    page = opened(
        title=hostile,
        portfolio=dataclasses.replace(report.portfolio, result=renamed),
        distribution=dataclasses.replace(report.distribution, fan_charts=named),
    )
    look_at(page, "equity")
    look_at(page, "fan")
    assert page.title == hostile
    assert page.find_elements("css selector", "main img, main b:not(.omitted b)") == []
    legend = page.find_elements("css selector", "#equity .legendtext")
    assert hostile in [entry.text for entry in legend]
    assert hostile in [
        option.text for option in page.find_elements("css selector", "select[data-dropdowns='fan'] option")
    ]


def test_a_phone_scrolls_tables_in_their_boxes_and_never_the_page(opened):
    page = opened(width=390)
    drawn = scroll_through(page)
    assert min(drawn.values()) > 0
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    wider = page.execute_script(
        "return [...document.querySelectorAll('main svg, main select, main .card')]"
        ".filter((each) => each.getBoundingClientRect().right > 390).length"
    )
    assert wider == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(opened, scheme):
    page = opened()
    show_as(page, scheme)
    look_at(page, "equity")
    paper = page.execute_script(STYLE, ".chart-box", "backgroundColor")
    assert (contrast(paper, "#ffffff") < 1.5) == (scheme == "light")
    for selector, property_ in (
        ("h1", "color"), (".verdict .eyebrow", "color"), (".warnings h2", "color"), (".tiles dt", "color"),
        (".tiles .small", "color"), ("td small", "color"), (".caption", "color"), ("tr.baseline td", "color"),
        ("select", "color"), ("#equity .xtick text", "fill"), ("#equity .legendtext", "fill"),
    ):  # fmt: skip
        ink = page.execute_script(STYLE, selector, property_)
        assert contrast(ink, paper) >= 4.5, (scheme, selector)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_readable_in_the_strongest_tint(opened, scheme):
    page = opened()
    show_as(page, scheme)
    for way in ("up", "down"):
        cell = page.execute_script(
            "const cells = [...document.querySelectorAll(`.months .${arguments[0]}`)];"
            "cells.sort((a, b) => b.style.getPropertyValue('--tint') - a.style.getPropertyValue('--tint'));"
            "const style = getComputedStyle(cells[0]);"
            "return [style.backgroundColor, style.color, getComputedStyle(cells[0].parentElement).backgroundColor]",
            way,
        )
        red, green, blue, *opacity = (float(part) for part in cell[0].strip("rgba()").split(","))
        alpha = opacity[0] if opacity else 1.0
        paper = [float(part) for part in cell[2].strip("rgb()").split(",")]
        mixed = [round(alpha * a + (1 - alpha) * b) for a, b in zip((red, green, blue), paper, strict=True)]
        assert contrast(cell[1], f"rgb({mixed[0]}, {mixed[1]}, {mixed[2]})") >= 4.5, (scheme, way)


def test_printing_draws_every_chart_at_once(opened):
    page = opened()
    drawn = page.execute_script(PRINT + DRAWN)  # in one script: a printer does not wait
    assert len(drawn) >= 30
    assert min(drawn.values()) > 0


def test_what_is_printed_fits_the_paper(opened):
    page = opened()
    page.execute_script(PRINT)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    paper = {"width": 680, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 680
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"]).startswith(b"%PDF")


def test_a_page_of_versions_alone_works(opened):
    page = opened(signal=None, distribution=None, portfolio=None)
    drawn = scroll_through(page)
    assert set(drawn) == {"difference", "yearly-difference", "cumulative-difference", "version-decay"}
    assert page.get_log("browser") == []
