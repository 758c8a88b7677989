from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.forecast_text import MAX_ROWS
from kronos.predictor import KronosPredictor
from tests.kronos.builders import make_model, make_panel, make_tokenizer


@pytest.fixture(scope="module")
def forecast() -> Forecast:
    names = [f"N{number:02}" for number in range(MAX_ROWS + 2)]
    predictor = KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=16)
    return predictor.forecast(make_panel(9, *names), SampleConfig(4, T=1.0), horizon=3)


def test_a_forecast_prints_as_one_line_with_sizes_date_and_model(forecast: Forecast) -> None:
    assert repr(forecast) == (
        "Forecast(12 windows, 4 paths of 3 bars, as of 2024-01-12, 12 instruments, model Kronos, not calibrated)"
    )
    assert repr(forecast[:1]).startswith("Forecast(1 window, 4 paths of 3 bars, as of 2024-01-12, N00, ")
    assert repr(forecast[:0]).startswith("Forecast(0 windows, ")


def test_a_notebook_shows_the_closes_at_the_last_step_of_the_first_windows(forecast: Forecast) -> None:
    page = forecast._repr_html_()
    rows = re.findall(r"<tr>(<td>.*?)</tr>", page)
    assert len(rows) == MAX_ROWS
    assert "<p>2 more windows</p>" in page
    cells = re.findall(r"<td>(.*?)</td>", rows[3])
    ends = forecast.path("close")[3, :, -1]
    low, middle, high = np.quantile(ends, [0.05, 0.5, 0.95], method="weibull")
    assert cells == [
        "N03", "2024-01-12", f"{forecast.last_bar[3, 3]:.6g}", "2024-01-17",
        *(f"{value:.6g}" for value in (low, middle, high)),
    ]  # fmt: skip


def test_names_are_escaped_and_prices_below_zero_are_shown(forecast: Forecast) -> None:
    odd = forecast[:1]
    index = odd.index.set_levels(["<b>"], level="instrument")
    page = replace(odd, index=index, last_bar=-odd.last_bar)._repr_html_()
    assert "<td>&lt;b&gt;</td>" in page
    assert forecast[:0]._repr_html_().count("<tr>") == 1
