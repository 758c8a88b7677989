"""Picks as text, and their page."""

import re

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("jinja2")

from kronos_strategies.picks import Picks, pick
from kronos_strategies.portfolio import PortfolioRules
from kronos_strategies.report.picks import picks_columns, picks_lines, picks_table, save_picks_page

DATE = pd.Timestamp("2024-03-01")


def picks(rank_by: str = "score") -> Picks:
    """Three ranked instruments, one of them new and one that is held, and a position that the data do not have."""
    index = pd.Index(["A", "B", "C"], name="instrument")
    signals = pd.DataFrame(
        {"score": [0.02, 0.01, -0.01], "expected_return": [0.012, 0, -0.0301], "volatility": 0.02,
         "prob_up": [0.6, 0.55, 0.4], "q05": [-0.1, -0.2, -0.3], "q95": 0.1},
        index,
    )  # fmt: skip
    state = pd.DataFrame({"close": 10.0, "traded_value": [4.5314e9, 123e6, 980.0], "flags": ""}, index)
    state.loc["<b>X"] = [np.nan, np.nan, "unknown"]
    rules = PortfolioRules(rank_by=rank_by, topk=2, cash_buffer=0.02)
    previous = pd.Series({"C": 0.3, "<b>X": 0.1})
    table = pick(signals, signals.iloc[::-1].iloc[:2] * -1, state, previous, rules, index)
    keys = pd.MultiIndex.from_product([[DATE], table.index], names=["datetime", "instrument"])
    return Picks("csi300", DATE, table.set_axis(keys), rules, ("model: x",), ("Careful.",))


def test_cells_are_short_and_undefined_ones_are_dashes():
    made = picks()
    assert " ".join(column.label for column in picks_columns(made)) == (
        "Instrument Rank Moved Weight Target Trade Score Return Vol./bar Prob. up Value/day Flags"
    )
    assert [" ".join(cell.text for cell in row.cells) for row in picks_table(made).rows] == [
        "A 1 – – 88.00% +88.00% +0.0200 +1.20% 2.00% 60% 4.53 bn ",
        "B 2 0 – – – +0.0100 0.00% 2.00% 55% 123 M ",
        "C 3 −2 30.00% – −30.00% −0.0100 −3.01% 2.00% 40% 980 ",
        "<b>X – – 10.00% 10.00% – – – – – – unknown",
    ]


def test_the_signal_that_ranks_is_always_shown():
    assert "q05" not in [column.label for column in picks_columns(picks())]
    assert [column.label for column in picks_columns(picks("q05"))][6:8] == ["q05", "Score"]


def test_totals_come_first():
    assert picks_lines(picks()) == (
        "buy 88.0% of equity in 1, sell 30.0% in 1; then 2 positions, 2.0% cash", "model: x"
    )  # fmt: skip


def test_the_page_is_one_file_without_foreign_markup_and_the_same_every_time(tmp_path):
    page = save_picks_page(picks(), tmp_path / "new" / "a.html").read_text(encoding="utf-8")
    assert "csi300 as of 2024-03-01" in page
    assert "Careful." in page
    assert "&lt;b&gt;X" in page
    assert "<b>X" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page == save_picks_page(picks(), tmp_path / "b.html").read_text(encoding="utf-8")


@pytest.mark.integration
def test_a_click_sorts_the_page_by_number_and_undefined_ones_stay_last(browser, tmp_path):
    browser.get_log("browser")
    browser.get(save_picks_page(picks(), tmp_path / "a.html").as_uri())
    assert browser.get_log("browser") == []

    def names() -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll('#picks tbody th')].map((cell) => cell.textContent)"
        )

    assert names() == ["A", "B", "C", "<b>X"]
    (button,) = [
        each for each in browser.find_elements("css selector", "#picks button") if each.text == "Trade"
    ]
    button.click()
    assert names() == ["A", "B", "<b>X", "C"]
    (button,) = [
        each for each in browser.find_elements("css selector", "#picks button") if each.text == "Rank"
    ]
    button.click()
    assert names() == ["C", "B", "A", "<b>X"]
