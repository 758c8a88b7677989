import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("arch")
pytest.importorskip("empyrical")

from kronos_strategies.evaluation.portfolio.costs import break_even_bps
from kronos_strategies.evaluation.portfolio.returns import (
    annual_return,
    calmar,
    max_drawdown,
    sharpe,
    sortino,
)
from kronos_strategies.evaluation.portfolio.sharpe import study_sharpe
from kronos_strategies.evaluation.portfolio.study import study_portfolio

FIGURES = ["annual_return", "volatility", "sharpe", "sortino", "calmar", "max_drawdown"]
WEIGHTS = {"S1": 0.5, "S6": 0.5}


def test_books_are_net_gross_and_benchmarks_annualised_by_the_results_own_year(book):
    result = book(WEIGHTS)
    books = study_portfolio(result).books
    assert books.index.tolist() == ["net", "gross", "benchmark", "equal weight"]
    assert books.columns.tolist() == FIGURES
    net, market = result.returns["net"], result.benchmarks["benchmark"]
    assert books.loc["net", "annual_return"] == annual_return(net, 100)
    assert books.loc["net", "calmar"] == calmar(net, 100)
    assert books.loc["gross", "sharpe"] == sharpe(result.returns["gross"], 100)
    assert books.loc["benchmark", "sortino"] == sortino(market, 100)
    assert books.loc["equal weight", "max_drawdown"] == max_drawdown(0.5 * market)


def test_metrics_are_net_unless_named_gross(book):
    result = book(WEIGHTS)
    study, net, gross = study_portfolio(result, trials=7), result.returns["net"], result.returns["gross"]
    figures, sure = study.metrics(), study_sharpe(result.returns["net"], 100, trials=7)
    expected = {
        "annual_return": annual_return(net, 100), "sharpe": sharpe(net, 100), "sharpe_low": sure.low,
        "sharpe_high": sure.high, "psr": sure.psr, "dsr": sure.dsr, "trials": 7,
        "gross_annual_return": annual_return(gross, 100), "gross_sharpe": sharpe(gross, 100),
        "annual_cost": result.cost.mean() * 100, "turnover": result.turnover.mean(),
        "break_even_bps": break_even_bps(gross, result.turnover),
        "benchmark_sharpe": sharpe(result.benchmarks["benchmark"], 100),
        "equal_weight_max_drawdown": max_drawdown(result.benchmarks["equal weight"]),
        "beta_equal_weight": study.active.loc["equal weight", "beta"],
        "active_return_benchmark": study.active.loc["benchmark", "active_return"],
        "qlib_net_max_drawdown": study.parity["net_max_drawdown"],
    }  # fmt: skip
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_metrics_have_all_their_names_and_are_json(book):
    figures = study_portfolio(book(WEIGHTS)).metrics()
    own = "annual_return volatility sharpe sharpe_low sharpe_high psr dsr trials sortino calmar max_drawdown"
    costs = "gross_annual_return gross_sharpe annual_cost turnover break_even_bps"
    beside = "{0}_annual_return {0}_sharpe {0}_max_drawdown beta_{0} active_return_{0} information_ratio_{0}"
    benchmarks = [name for b in ("benchmark", "equal_weight") for name in beside.format(b).split()]
    ours = [name for name in figures if not name.startswith("qlib_")]
    assert ours == [*own.split(), *costs.split(), *benchmarks]
    assert len(figures) == len(ours) + 9
    assert json.loads(json.dumps(figures)) == figures


def test_the_parts_are_of_the_net_returns(book, exposures):
    result = book(WEIGHTS)
    study = study_portfolio(result, exposures)
    net = result.returns["net"]
    assert study.drawdowns["depth"].iloc[0] == max_drawdown(net)
    assert study.months["year"].iloc[0] == pytest.approx((1 + net).prod() - 1)
    assert study.costs.loc[10, "sharpe"] == pytest.approx(sharpe(net, 100))  # the book pays 10 of each side
    np.testing.assert_allclose(study.tilts["size"], 0.5)
    np.testing.assert_allclose(study.exposure["gross"], 1.0)
    assert study.result is result


def test_without_exposures_there_are_no_tilts(book, days):
    tilts = study_portfolio(book(WEIGHTS)).tilts
    assert tilts.empty
    assert tilts.index.equals(days)


def test_equal_seeds_give_equal_metrics(book):
    one, same, other = (study_portfolio(book(WEIGHTS), seed=seed).metrics() for seed in (1, 1, 2))
    assert one == same
    assert {name for name in one if one[name] != other[name]} == {"sharpe_low", "sharpe_high"}


def test_a_result_without_bars_has_a_study_without_figures(book, exposures):
    study = study_portfolio(book(WEIGHTS, bars=0), exposures)
    figures = study.metrics()
    assert all(math.isnan(value) for name, value in figures.items() if name != "trials")
    assert study.exposure.empty
    assert study.drawdowns.empty
    assert study.months.empty


def test_one_bar_has_a_return_but_no_ratio(book, exposures):
    figures = study_portfolio(book(WEIGHTS, bars=1), exposures).metrics()
    assert np.isfinite(figures["annual_return"])
    assert math.isnan(figures["sharpe"])
    assert math.isnan(figures["information_ratio_benchmark"])


def test_a_book_that_never_invests_earns_nothing_and_is_compared_all_the_same(book, days, exposures):
    idle = pd.Series(0.0, days)
    result = replace(book({}), returns=pd.DataFrame({"gross": idle, "net": idle}), turnover=idle, cost=idle)
    study = study_portfolio(result, exposures)
    figures = study.metrics()
    assert [figures[name] for name in ("annual_return", "volatility", "max_drawdown", "turnover")] == [0] * 4
    assert all(math.isnan(figures[name]) for name in ("sharpe", "sortino", "calmar", "psr", "break_even_bps"))
    assert figures["active_return_benchmark"] == pytest.approx(-result.benchmarks["benchmark"].mean() * 100)
    assert (study.exposure == 0).all(axis=None)
    assert study.tilts.isna().all(axis=None)
    assert study.drawdowns.empty


def test_a_total_loss_is_told_as_one(book):
    result = book(WEIGHTS)
    lost = result.returns.copy()
    lost.iloc[30] = -1.0
    study = study_portfolio(replace(result, returns=lost))
    assert study.metrics()["annual_return"] == study.metrics()["max_drawdown"] == -1.0
    assert pd.isna(study.drawdowns["end"].iloc[0])


def test_a_gap_in_a_benchmark_leaves_the_book_alone(book):
    result, gapped = book(WEIGHTS), book(WEIGHTS).benchmarks.copy()
    gapped.iloc[:10, 0] = np.nan
    whole, holed = (
        study_portfolio(result).metrics(),
        study_portfolio(replace(result, benchmarks=gapped)).metrics(),
    )
    changed = {name for name in whole if whole[name] != holed[name]}
    assert "beta_benchmark" in changed
    assert all("benchmark" in name for name in changed)
    assert all(map(math.isfinite, holed.values()))


@pytest.mark.parametrize("name", ["net", "gross"])
def test_a_benchmark_does_not_pass_for_the_book(book, name):
    result = book(WEIGHTS)
    named = result.benchmarks.rename(columns={"benchmark": name})
    with pytest.raises(ValueError, match=f"A benchmark is named '{name}'"):
        study_portfolio(replace(result, benchmarks=named))
