"""Figures show the numbers they are given, small and readable on light and dark."""

import dataclasses
import importlib
import sys

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.portfolio.returns import max_drawdown
from kronos_strategies.report import figures
from kronos_strategies.result import BacktestResult
from tests.kronos_strategies.report.colours import contrast


def test_cumulative_ic_sums_the_defined_dates(coefficients):
    rank_ic, ic = figures.cumulative_ic(coefficients).data
    assert (rank_ic.name, ic.name) == ("RankIC", "IC")
    np.testing.assert_allclose(rank_ic.y[-1], coefficients["rank_ic"].sum(), rtol=1e-6)
    np.testing.assert_allclose(ic.y[-1], coefficients["ic"].sum(), rtol=1e-6)
    assert rank_ic.y[5] == rank_ic.y[4]  # the undefined date adds nothing


def test_a_bar_is_the_mean_of_its_months_defined_dates(coefficients):
    (bars,) = figures.monthly_rank_ic(coefficients).data
    months = coefficients["rank_ic"].groupby(coefficients.index.strftime("%Y-%m-01")).mean()
    assert list(bars.x) == list(months.index)
    np.testing.assert_allclose(bars.y, months, rtol=1e-6)


def test_months_below_zero_have_another_colour(days):
    values = pd.Series(np.where(days.month % 2, 0.1, -0.1), index=days)
    (bars,) = figures.monthly_rank_ic(values.to_frame("rank_ic")).data
    assert [colour == figures.BLUE for colour in bars.marker.color] == [mean > 0 for mean in bars.y]


def test_a_month_without_a_defined_date_has_no_bar(coefficients):
    coefficients.loc["2023-02", "rank_ic"] = np.nan
    (bars,) = figures.monthly_rank_ic(coefficients).data
    assert "2023-02-01" not in bars.x
    assert "2023-03-01" in bars.x


def test_wealth_compounds_net_gross_and_every_benchmark(result):
    lines = {line.name: line.y for line in figures.wealth(result).data}
    assert list(lines) == ["net of costs", "gross", "benchmark", "equal weight"]
    np.testing.assert_allclose(
        lines["net of costs"][:2], (1 + result.returns["net"]).cumprod()[:2], rtol=1e-6
    )
    np.testing.assert_allclose(lines["gross"][-1], (1 + result.returns["gross"]).prod(), rtol=1e-6)
    np.testing.assert_allclose(
        lines["equal weight"][-1], (1 + result.benchmarks["equal weight"]).prod(), rtol=1e-6
    )


def test_the_deepest_point_drawn_is_the_max_drawdown(result):
    lines = {line.name: line.y for line in figures.drawdown(result).data}
    assert list(lines) == ["net of costs", "benchmark", "equal weight"]
    np.testing.assert_allclose(min(lines["net of costs"]), max_drawdown(result.returns["net"]), rtol=1e-6)


def test_turnover_and_cost_show_what_was_paid(result):
    (bars,) = figures.turnover(result).data
    january = result.turnover[result.turnover.index.month == 1]
    np.testing.assert_allclose(bars.y[0], january.mean(), rtol=1e-6)
    (line,) = figures.cost(result).data
    np.testing.assert_allclose(line.y[-1], result.cost.sum(), rtol=1e-6)


def test_a_benchmark_is_drawn_on_the_books_bars_only(result):
    longer = pd.bdate_range("2022-01-03", "2024-01-01")
    benchmarks = pd.DataFrame({"benchmark": 0.001}, index=longer)
    lines = figures.wealth(dataclasses.replace(result, benchmarks=benchmarks)).data
    assert len(lines[2].x) == len(result.returns)
    np.testing.assert_allclose(lines[2].y[-1], 1.001 ** len(result.returns), rtol=1e-5)


def test_a_long_sample_is_thinned_and_keeps_its_end_and_its_deepest_fall():
    minutes = pd.date_range("2023-01-02 09:30", periods=20_011, freq="min")
    net = pd.Series(1e-3 * np.random.default_rng(0).standard_normal(len(minutes)), index=minutes)
    long = BacktestResult(
        returns=pd.DataFrame({"gross": net, "net": net}),
        benchmarks=pd.DataFrame(index=minutes),
        turnover=net * 0,
        cost=net * 0,
        positions=net * 0,
    )
    grown, fallen = figures.wealth(long).data[0], figures.drawdown(long).data[0]
    assert len(grown.x) == len(grown.y) <= figures.MAX_POINTS
    assert grown.x[-1] == f"{minutes[-1]:%Y-%m-%d %H:%M}"
    np.testing.assert_allclose(grown.y[-1], (1 + net).prod(), rtol=1e-6)
    np.testing.assert_allclose(min(fallen.y), max_drawdown(net), rtol=1e-6)


def test_a_name_is_text_and_not_markup(result):
    benchmarks = result.benchmarks.rename(columns={"benchmark": "<a href='x'>A & B</a>"})
    named = figures.wealth(dataclasses.replace(result, benchmarks=benchmarks)).data[2].name
    assert named == "&lt;a href='x'&gt;A &amp; B&lt;/a&gt;"


def test_no_text_in_a_figures_json_can_end_a_script(coefficients):
    figure = figures.cumulative_ic(coefficients).update_layout(title="</script><script>")
    assert "<" not in figure.to_json()


def test_values_travel_as_four_bytes(result):
    assert figures.wealth(result).data[0].y.dtype == np.float32


@pytest.mark.parametrize("background", ["#ffffff", "#171b20"])
def test_every_line_stands_out_from_paper_light_and_dark(background):
    for colour in (figures.BLUE, *figures.BENCHMARK_COLOURS):
        assert contrast(colour, background) >= 3, colour


@pytest.mark.parametrize(("missing", "module"), [("plotly.graph_objects", "figures"), ("jinja2", "page")])
def test_a_missing_library_names_the_extra(monkeypatch, missing, module):
    name = f"kronos_strategies.report.{module}"
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=r"pip install 'kronos-strategies\[report\]'"):
        importlib.import_module(name)
