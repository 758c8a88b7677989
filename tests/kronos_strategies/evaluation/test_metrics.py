import json

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.metrics import coefficients, compare, portfolio_metrics, signal_metrics
from kronos_strategies.evaluation.portfolio.returns import annual_return, max_drawdown, sharpe
from kronos_strategies.evaluation.signal.ic import information_coefficient, summarise
from kronos_strategies.result import BacktestResult

DAYS = pd.bdate_range("2024-01-01", periods=40)


@pytest.fixture
def panel() -> tuple[pd.Series, pd.Series]:
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [DAYS, [f"S{i:02}" for i in range(30)]], names=["datetime", "instrument"]
    )
    label = pd.Series(rng.normal(size=len(index)), index)
    return label + 3 * rng.normal(size=len(index)), label


def test_signal_metrics_are_those_of_the_coefficients(panel):
    figures = signal_metrics(coefficients(*panel), horizon=2)
    rank = summarise(information_coefficient(*panel, rank=True), horizon=2)
    assert (figures["rank_ic"], figures["rank_icir"], figures["rank_ic_t"]) == (rank.mean, rank.ir, rank.t)
    assert figures["ic"] == information_coefficient(*panel).mean()
    assert figures["dates"] == len(DAYS)


def test_comparison_has_a_row_a_score_in_the_order_given(panel):
    score, label = panel
    table = compare({"good": coefficients(score, label), "inverse": coefficients(-score, label)}, horizon=1)
    assert list(table.index) == ["good", "inverse"]
    assert table.loc["good", "rank_ic"] == pytest.approx(-table.loc["inverse", "rank_ic"])
    assert table.loc["good", "rank_ic"] > 0.1


def test_portfolio_metrics_are_net_unless_named_gross_and_annualise_by_the_results_own_year():
    rng = np.random.default_rng(1)
    gross = pd.Series(rng.normal(0.001, 0.01, len(DAYS)), DAYS)
    cost = pd.Series(0.0005, DAYS)
    index = pd.Series(rng.normal(0, 0.01, len(DAYS)), DAYS)
    result = BacktestResult(
        returns=pd.DataFrame({"gross": gross, "net": gross - cost}),
        benchmarks=pd.DataFrame({"benchmark": index, "equal weight": 2 * index}),
        turnover=pd.Series(0.1, DAYS),
        cost=cost,
        positions=pd.Series(10, DAYS),
        bars_per_year=100,
    )
    figures = portfolio_metrics(result)
    assert figures["annual_return"] == annual_return(gross - cost, 100)
    assert figures["gross_annual_return"] == annual_return(gross, 100)
    assert figures["sharpe"] == sharpe(gross - cost, 100)
    assert figures["max_drawdown"] == max_drawdown(gross - cost)
    assert figures["annual_cost"] == pytest.approx(0.05)
    assert figures["turnover"] == pytest.approx(0.1)
    assert figures["equal_weight_sharpe"] == pytest.approx(figures["benchmark_sharpe"])
    json.dumps(figures)
