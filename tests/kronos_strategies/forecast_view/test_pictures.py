from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("plotly")

from kronos.forecast import Forecast
from kronos_strategies import plot, save_forecast_plot
from kronos_strategies.evaluation.distribution.forecast_chart import forecast_chart
from kronos_strategies.forecast_view.pictures import MAX_CHARTS, PageText, format_cell, render_page
from kronos_strategies.forecast_view.summary import forecast_table, write_table


def test_the_figure_has_candles_volume_fan_paths_and_truth(
    forecast: Forecast, panel: dict[str, pd.DataFrame]
) -> None:
    drawn = plot(forecast, panel, "A", history=20, paths=3)
    by_name = {trace.name: trace for trace in drawn.data}
    assert list(by_name) == [
        "90% band", "50% band", "3 sampled paths", "bars", "held back", "median of paths",
        "volume", "median volume", "volume held back",
    ]  # fmt: skip
    assert len(by_name["bars"].close) == 20
    assert list(by_name["held back"].close) == pytest.approx(panel["A"]["close"].iloc[50:55].tolist())
    assert list(by_name["held back"].x) == list(by_name["median of paths"].x)
    assert set(by_name["bars"].x).isdisjoint(by_name["held back"].x)
    assert drawn.layout.title.text.startswith("A, forecast as of 2024-03-11 by Kronos, 19 paths")


def test_without_volume_and_truth_there_is_one_panel(
    forecast: Forecast, panel: dict[str, pd.DataFrame]
) -> None:
    bare = panel["A"].iloc[:50].drop(columns=["volume", "amount"])
    drawn = plot(forecast[:1], bare)
    assert "held back" not in {trace.name for trace in drawn.data}
    assert "yaxis2" not in drawn.layout
    assert not [trace for trace in drawn.data if trace.type == "bar"]


def test_a_page_is_one_file_with_a_chart_per_instrument_and_the_same_every_time(
    forecast: Forecast, panel: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    path = save_forecast_plot(forecast, tmp_path / "a.html", panel)
    page = path.read_text(encoding="utf-8")
    assert re.findall(r'id="(chart-\d)"', page) == ["chart-0", "chart-1"]
    assert "A, forecast as of 2024-03-11" in page
    assert not re.search(
        r'(?:src|href)="(?!data:|#)', re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    )
    assert page == save_forecast_plot(forecast, tmp_path / "b.html", panel).read_text(encoding="utf-8")


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_picture_has_the_format_of_its_suffix(
    suffix: str, begins: bytes, forecast: Forecast, panel: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    path = save_forecast_plot(forecast[:1], tmp_path / "new" / f"a.{suffix}", panel)
    assert path.read_bytes().startswith(begins)


def test_unknown_kinds_and_too_many_instruments_are_refused(forecast: Forecast, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in '.gif'. Choose one of .html, .png"):
        save_forecast_plot(forecast, tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"21 instruments do not fit"):
        save_forecast_plot(forecast, tmp_path / "a.png", instruments=["A"] * (MAX_CHARTS + 1))


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("expected_return", -0.0123, "−1.23%"), ("expected_return", -0.00001, "+0.00%"),
        ("volatility", 0.0123, "1.23%"), ("prob_up", 0.504, "50%"), ("score", -0.05, "−0.0500"),
        ("close", 12345.678, "12345.7"),
    ],
)  # fmt: skip
def test_cells_have_the_form_of_their_column(column: str, value: float, text: str) -> None:
    assert format_cell(column, value) == text


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def test_a_name_with_markup_is_text_on_the_page_and_in_its_charts(forecast: Forecast) -> None:
    plotly_js = pytest.importorskip("plotly.offline").get_plotlyjs()
    keys = [(date, HOSTILE) for date, _ in forecast.index[:1]]
    named = replace(forecast[:1], index=pd.MultiIndex.from_tuples(keys, names=forecast.index.names))
    chart = forecast_chart(named, None, HOSTILE, None, 3)
    page = render_page([chart], PageText((HOSTILE,), (HOSTILE,), forecast_table(named)))
    page = page.replace(plotly_js, "")
    assert "<img" not in page
    assert "alert(1)</script>" not in page
    assert page.count("<script") == page.count("</script>")
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5  # title, heading, line, warning, row


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_name_that_is_a_formula_is_harmless_in_csv_and_unchanged_elsewhere(
    forecast: Forecast, suffix: str, tmp_path: Path
) -> None:
    formula = "=HYPERLINK(1)"
    keys = [(date, formula) for date, _ in forecast.index[:1]]
    named = replace(forecast[:1], index=pd.MultiIndex.from_tuples(keys, names=forecast.index.names))
    path = write_table(forecast_table(named), tmp_path / f"table{suffix}")
    read = {".csv": pd.read_csv, ".json": pd.read_json, ".parquet": pd.read_parquet}[suffix]
    assert read(path)["instrument"].tolist() == ["'" + formula if suffix == ".csv" else formula]
