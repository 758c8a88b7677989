import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("statsmodels")
pytest.importorskip("arch")

from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.comparison.portfolios import (
    PortfolioVersion,
    compare_results,
    realized_volatility,
    sharpe_contributions,
    summary_table,
)
from kronos_strategies.evaluation.portfolio.returns import annual_return, max_drawdown, sharpe
from kronos_strategies.evaluation.significance import ewc

BARS = 500


def result_of(net, start="2022-01-03", turnover=0.1) -> BacktestResult:
    dates = pd.bdate_range(start, periods=len(net), name="datetime")
    net = pd.Series(net, dates)
    return BacktestResult(
        returns=pd.DataFrame({"gross": net + 0.001, "net": net}),
        benchmarks=pd.DataFrame({"market": net * 0.5}),
        turnover=pd.Series(turnover, dates),
        cost=pd.Series(0.001, dates),
        weights=pd.Series(
            1.0, pd.MultiIndex.from_product([dates, ["A"]], names=["datetime", "instrument"]), name="weight"
        ),
    )


@pytest.fixture
def market() -> np.ndarray:
    return np.random.default_rng(0).normal(0.0004, 0.012, BARS)


def row(comparison, version, metric):
    table = comparison.table
    return table[(table["version"] == version) & (table["metric"] == metric)].iloc[0]


def test_a_cost_on_every_bar_is_the_difference_in_net_return_per_year(market):
    noise = np.random.default_rng(1).normal(0, 0.0005, BARS)
    noise -= noise.mean()
    portfolios = [
        PortfolioVersion("free", result_of(market)),
        PortfolioVersion("costly", result_of(market - 0.0002 + noise)),
    ]
    found = row(compare_results(portfolios), "costly", "net_return")
    assert found["difference"] == pytest.approx(-0.0002 * 252)
    assert found["difference_high"] < 0, "common moves of the market cancel"
    assert row(compare_results(portfolios), "free", "net_return")["low"] < 0 < found["mean"] + 1


def test_sharpe_contributions_average_to_the_ratio(market):
    ratio = sharpe(pd.Series(market), bars_per_year=1)
    assert sharpe_contributions(market).mean() == pytest.approx(ratio, rel=1e-12)


def test_the_error_of_sharpe_contributions_is_that_of_the_ratio():
    """For independent normal returns it is sqrt((1 + S^2 / 2) / n)."""
    returns = np.random.default_rng(2).normal(0.5, 1.0, 40_000)
    error = ewc(sharpe_contributions(returns)).std_error
    assert error == pytest.approx(np.sqrt((1 + 0.5**2 / 2) / 40_000), rel=0.08)


def test_constant_returns_have_no_sharpe_ratio():
    assert np.isnan(sharpe_contributions(np.full(10, 0.01))).all()


def test_realized_volatility_is_that_of_whole_blocks():
    net = pd.Series([0.01, -0.01, 0.02, -0.02, 0.5], pd.bdate_range("2024-01-01", periods=5))
    found = realized_volatility(net, 2, 252)
    np.testing.assert_allclose(found, np.array([0.01, 0.02]) * 252**0.5)
    assert list(found.index) == [net.index[1], net.index[3]], "the last bar alone is not a block"


def test_a_portfolio_of_twice_its_target_deviates_by_the_target_and_varies_as_one_on_target():
    signs = np.random.default_rng(3).choice([-1.0, 1.0], BARS)
    own = 0.1 / 252**0.5 * signs * np.repeat([0.8, 1.2], BARS // 2)
    portfolios = [
        PortfolioVersion("on target", result_of(own), target_volatility=0.1),
        PortfolioVersion("twice", result_of(own * 2), target_volatility=0.1),
    ]
    comparison = compare_results(portfolios, block=25)
    assert row(comparison, "on target", "volatility_deviation")["mean"] == pytest.approx(0.2)
    assert row(comparison, "twice", "volatility_deviation")["mean"] == pytest.approx(1.0)
    for name in comparison.versions:
        assert row(comparison, name, "volatility_variation")["mean"] == pytest.approx(0.2)


def test_without_a_target_of_all_there_is_no_deviation_from_one(market):
    portfolios = [
        PortfolioVersion("target", result_of(market), target_volatility=0.1),
        PortfolioVersion("none", result_of(market * 2)),
    ]
    assert "volatility_deviation" not in compare_results(portfolios).by_date


def test_only_common_bars_are_compared(market):
    early, late = result_of(market), result_of(market, start="2022-03-01")
    comparison = compare_results([PortfolioVersion("early", early), PortfolioVersion("late", late)])
    common = early.returns.index.intersection(late.returns.index)
    assert comparison.by_date["net_return"].index.equals(common)
    assert list(comparison.sample_counts.values()) == [
        len(early.returns.index.union(late.returns.index)),
        len(early.returns.index.union(late.returns.index)) - len(common),
        len(common),
    ]


def test_the_summary_has_performance_over_the_common_bars(market):
    portfolios = [
        PortfolioVersion("one", result_of(market)),
        PortfolioVersion("two", result_of(market * 0.5)),
    ]
    table = summary_table(compare_results(portfolios), portfolios)
    net = portfolios[1].result.returns["net"]
    assert table.loc["two", "annual_return"] == pytest.approx(annual_return(net))
    assert table.loc["two", "max_drawdown"] == pytest.approx(max_drawdown(net))
    assert table.loc["two", "sharpe"] == pytest.approx(sharpe(net))
    assert table.loc["two", "turnover"] == pytest.approx(25.2)
    assert np.isnan(table.loc["one", "net_return_difference"])
    assert table.loc["two", "sharpe_difference"] == pytest.approx(0, abs=1e-9)


def test_the_page_says_which_portfolio_earns_more(market):
    pytest.importorskip("plotly")
    from kronos_strategies.report.export import render, to_csv_files
    from kronos_strategies.report.report import Report
    from kronos_strategies.report.summary import summarize

    steady = np.random.default_rng(4).normal(0.0, 0.0005, BARS)
    portfolios = [
        PortfolioVersion("plain", result_of(market), provenance={"rules": "topk=50"}),
        PortfolioVersion("better", result_of(market + 0.0005 + steady)),
    ]
    report = Report("rules", {}, {}, (), versions=compare_results(portfolios))
    verdict = summarize(report)
    assert verdict.headline == "A version earns more than the reference"
    assert re.search(r"better earns significantly more, by \+1\d\.\d\d%", verdict.sentences[0])
    page = render(report)
    assert "Sharpe ratio per year, net" in page
    assert "Variation of realized volatility around its mean, lower is better" in page
    assert "on their common bars, compared with plain" in page
    assert "versions_by_date.csv" in to_csv_files(report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ours: [ours[0]], "two or more portfolios"),
        (lambda ours: [ours[0], dataclasses.replace(ours[1], name="a")], "called 'a'"),
        (
            lambda ours: [
                ours[0],
                dataclasses.replace(ours[1], result=dataclasses.replace(ours[1].result, bars_per_year=365)),
            ],
            "different lengths",
        ),
        (
            lambda ours: [
                ours[0],
                dataclasses.replace(ours[1], result=result_of(np.zeros(5) + 0.01, start="2030-01-01")),
            ],
            "no common bar",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(market, change, message):
    ours = [PortfolioVersion("a", result_of(market)), PortfolioVersion("b", result_of(market * 2))]
    with pytest.raises(ValueError, match=message):
        compare_results(change(ours))


def test_an_unknown_reference_is_refused(market):
    ours = [PortfolioVersion("a", result_of(market)), PortfolioVersion("b", result_of(market * 2))]
    with pytest.raises(ValueError, match="The reference 'c' is not one of the portfolios"):
        compare_results(ours, reference="c")
