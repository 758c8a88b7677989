"""Figures show the numbers they are given, small and readable on light and dark."""

import base64
import dataclasses
import importlib
import json
import sys

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.baselines import MODEL
from kronos_strategies.evaluation.portfolio.returns import max_drawdown
from kronos_strategies.report.figures import base, comparison, distribution, portfolio, signal
from tests.kronos_strategies.report.colors import contrast


@pytest.fixture
def days() -> pd.DatetimeIndex:
    return pd.bdate_range("2023-01-02", periods=120, name="datetime")


def by_name(figure) -> dict:
    return {trace.name: trace for trace in figure.data if trace.name}


def test_cumulative_ic_sums_the_defined_dates(report):
    study = report.signal
    own = study.by_date["Kronos"].copy()
    own.iloc[5] = np.nan
    drawn = by_name(
        signal.cumulative_ic(dataclasses.replace(study, by_date={**study.by_date, "Kronos": own}))
    )
    rank_ic = drawn["Kronos, RankIC"].y
    np.testing.assert_allclose(rank_ic[-1], own["rank_ic"].sum(), rtol=1e-5)
    assert rank_ic[5] == rank_ic[4]  # the undefined date adds nothing
    naive = study.by_date["5-day reversal"]["rank_ic"]
    np.testing.assert_allclose(drawn["5-day reversal"].y[-1], naive.sum(), rtol=1e-5)


def test_a_rolling_mean_starts_when_its_window_is_full(report):
    own = report.signal.by_date["Kronos"]["rank_ic"]
    line = signal.rolling_ic(report.signal).data[0]
    assert line.x[0] == f"{own.index[signal.ROLLING - 1]:%Y-%m-%d}"
    np.testing.assert_allclose(line.y[0], own.iloc[: signal.ROLLING].mean(), rtol=1e-5)


def test_whiskers_reach_the_ends_of_the_interval(report):
    frame = report.signal.by_year
    (bars,) = signal.by_year(report.signal).data
    np.testing.assert_allclose(bars.y + bars.error_y.array, frame["high"], rtol=1e-5)
    np.testing.assert_allclose(bars.y - bars.error_y.arrayminus, frame["low"], atol=1e-6)
    np.testing.assert_allclose(bars.customdata, frame[["low", "high"]], rtol=1e-5)


def test_thirds_and_industries_are_drawn_apart(report):
    groups = report.signal.by_group
    industries = groups["exposure"] == "industry"
    assert signal.named_exposures(report.signal) == {"industry": int(industries.sum())}
    thirds = signal.terciles(report.signal)
    assert [trace.name for trace in thirds.data] == ["low", "middle", "high"]
    assert set(thirds.data[0].x) == set(groups.loc[~industries, "exposure"])


def test_a_band_has_a_gap_where_an_end_is_undefined():
    area = base.band([1, 2, 3], [0.0, np.nan, 0.2], [1.0, 2.0, 3.0], base.BLUE, 0.2)
    assert list(area.x) == [1, 3, 3, 1]
    np.testing.assert_allclose(area.y, [1.0, 3.0, 0.2, 0.0], rtol=1e-6)


def test_a_fan_starts_at_the_last_close_and_shows_realized_closes(report):
    fans = report.distribution.fan_charts
    key = fans[["instrument", "datetime"]].iloc[0]
    one = fans[(fans["instrument"] == key["instrument"]) & (fans["datetime"] == key["datetime"])]
    drawn = by_name(distribution.fan(one))
    start = one.loc[one["step"] == 0, "close"].item()
    for name in ("realized", "median path"):
        np.testing.assert_allclose(drawn[name].y[0], start, rtol=1e-6)
    ahead = one[one["step"] > 0].sort_values("step")
    np.testing.assert_allclose(drawn["median path"].y[1:], ahead["q50"], rtol=1e-6)
    np.testing.assert_allclose(drawn["realized"].y[1:], ahead["close"].dropna(), rtol=1e-6)
    wide = drawn["90% band"].y
    np.testing.assert_allclose(wide[1 : 1 + len(ahead)], ahead["q95"], rtol=1e-6)


def test_the_pit_histogram_of_each_horizon_is_drawn_over_its_tenths(report):
    drawn = by_name(distribution.pit(report.distribution))
    rows = report.distribution.pit.query("horizon == 5").sort_values("bin")
    np.testing.assert_allclose(drawn["5 bars"].y, rows["share"], rtol=1e-6)
    np.testing.assert_allclose(drawn["5 bars"].x, np.arange(10) / 10 + 0.05)


def test_coverage_of_model_and_random_walk_is_drawn_with_nominal_lines(report):
    figure = distribution.coverage(report.distribution)
    assert list(by_name(figure)) == ["Kronos, 80%", "Kronos, 90%", "random walk, 80%", "random walk, 90%"]
    assert [shape.y0 for shape in figure.layout.shapes] == [0.8, 0.9]


def test_skill_is_shown_by_both_estimators(report):
    own = [score for score in report.distribution.distributions if score.name == MODEL]
    drawn = by_name(distribution.crps_skill(report.distribution))
    np.testing.assert_allclose(drawn["fair"].y, [score.skill for score in own], rtol=1e-5)
    np.testing.assert_allclose(drawn["ensemble"].y, [score.skill_ensemble for score in own], rtol=1e-5)


def test_equity_compounds_net_gross_and_every_benchmark(report):
    result = report.portfolio.result
    lines = by_name(portfolio.equity(result))
    assert list(lines) == ["net of costs", "gross", "benchmark", "equal weight"]
    np.testing.assert_allclose(lines["gross"].y[-1], (1 + result.returns["gross"]).prod(), rtol=1e-5)
    np.testing.assert_allclose(
        lines["equal weight"].y[-1], (1 + result.benchmarks["equal weight"]).prod(), rtol=1e-5
    )


def test_the_deepest_point_drawn_is_the_max_drawdown(report):
    result = report.portfolio.result
    lines = by_name(portfolio.underwater(result))
    assert list(lines) == ["net of costs", "benchmark", "equal weight"]
    np.testing.assert_allclose(min(lines["net of costs"].y), max_drawdown(result.returns["net"]), rtol=1e-5)


def test_a_bar_is_the_mean_of_its_month_and_says_its_sign_by_color(days):
    values = pd.Series(np.where(days.month % 2, 0.1, -0.1), index=days)
    values.loc["2023-02"] = np.nan
    bars = base.monthly(values, "of each month")
    assert list(bars.x) == ["2023-01-01", "2023-03-01", "2023-04-01", "2023-05-01", "2023-06-01"]
    assert [color == base.BLUE for color in bars.marker.color] == [mean > 0 for mean in bars.y]


def test_a_benchmark_is_drawn_on_the_bars_of_the_portfolio_only(report):
    result = report.portfolio.result
    longer = pd.bdate_range("2019-01-01", "2023-01-01")
    benchmarks = pd.DataFrame({"benchmark": 0.001}, index=longer)
    line = by_name(portfolio.equity(dataclasses.replace(result, benchmarks=benchmarks)))["benchmark"]
    assert len(line.x) == len(result.returns)


def test_a_long_sample_is_downsampled_and_keeps_its_end_and_its_maximum_drawdown(report):
    minutes = pd.date_range("2023-01-02 09:30", periods=20_011, freq="min")
    net = pd.Series(1e-3 * np.random.default_rng(0).standard_normal(len(minutes)), index=minutes)
    long = dataclasses.replace(
        report.portfolio.result, returns=pd.DataFrame({"gross": net, "net": net}),
        benchmarks=pd.DataFrame(index=minutes),
    )  # fmt: skip
    grown, fallen = portfolio.equity(long).data[0], portfolio.underwater(long).data[0]
    assert len(grown.x) == len(grown.y) <= base.MAX_POINTS
    assert grown.x[-1] == f"{minutes[-1]:%Y-%m-%d %H:%M}"
    np.testing.assert_allclose(grown.y[-1], (1 + net).prod(), rtol=1e-6)
    np.testing.assert_allclose(min(fallen.y), max_drawdown(net), rtol=1e-6)


def test_a_noisy_series_is_shown_by_week_only_if_it_is_long(days):
    short = pd.Series(np.arange(120.0), index=days)
    assert base.weekly_mean(short) is short
    long = pd.Series(np.arange(500.0), index=pd.bdate_range("2023-01-02", periods=500))
    weekly = base.weekly_mean(long)
    assert len(weekly) == 100
    assert weekly.iloc[0] == 2.0  # Monday to Friday


def test_every_version_but_the_reference_has_a_difference(report):
    table = report.versions.table
    rows = table[(table["metric"] == "rank_ic") & (table["version"] != "base")]
    (dots,) = comparison.differences(report.versions, "rank_ic").data
    assert list(dots.y) == list(rows["version"])
    np.testing.assert_allclose(dots.x, rows["difference"], rtol=1e-5)
    np.testing.assert_allclose(dots.x - dots.error_x.arrayminus, rows["difference_low"], rtol=1e-4)


def test_cumulative_differences_end_at_the_sum(report):
    by_date = report.versions.by_date["rank_ic"]
    drawn = by_name(comparison.cumulative(report.versions, "rank_ic"))
    gap = (by_date["fine-tuned"] - by_date["base"]).sum()
    np.testing.assert_allclose(drawn["fine-tuned"].y[-1], gap, rtol=1e-5)
    assert "base" not in drawn


def test_labels_are_cut_and_stay_unlike_each_other():
    names = ["a" * 40, "a" * 40 + "b", "<b>"]
    cut = base.labels(names)
    assert len(set(cut)) == 3
    assert cut[2] == "&lt;b&gt;"
    assert max(map(len, cut)) <= base.LONGEST_LABEL + 1


def test_a_name_is_text_and_not_markup(days):
    named = base.line(pd.Series(1.0, index=days), "<a href='x'>A & B</a>").name
    assert named == "&lt;a href='x'&gt;A &amp; B&lt;/a&gt;"


def test_no_text_in_a_figures_json_can_end_a_script(report):
    figure = signal.cumulative_ic(report.signal).update_layout(title="</script><script>")
    assert "<" not in figure.to_json()


def test_values_travel_as_four_bytes(report):
    (line, *_) = json.loads(portfolio.equity(report.portfolio.result).to_json())["data"]
    assert line["y"]["dtype"] == "f4"
    assert len(base64.b64decode(line["y"]["bdata"])) == 4 * len(line["x"])


@pytest.mark.parametrize("background", ["#ffffff", "#171b20"])
def test_every_line_stands_out_from_paper_light_and_dark(background):
    for color in base.COLORS:
        assert contrast(color, background) >= 3, color


def test_an_empty_figure_is_recognized(report, days):
    assert base.is_empty(base.figure([], base.Axis("y")))
    assert base.is_empty(base.figure([base.line(pd.Series(np.nan, index=days), "x")], base.Axis("y")))
    assert not base.is_empty(portfolio.equity(report.portfolio.result))


@pytest.mark.parametrize(
    ("missing", "module"),
    [("plotly.graph_objects", "figures.base"), ("jinja2", "layout"), ("markupsafe", "export")],
)
def test_a_missing_library_names_the_extra(monkeypatch, missing, module):
    name = f"kronos_strategies.report.{module}"
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=r"pip install 'kronos-strategies\[report\]'"):
        importlib.import_module(name)
