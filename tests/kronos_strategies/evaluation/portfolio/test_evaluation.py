""""""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.portfolio.evaluation import (
    benchmark_relative,
    evaluate_portfolio,
    factor_tilts,
    gross_net_exposure,
)
from kronos_strategies.evaluation.portfolio.returns import (
    annual_return,
    break_even_bps,
    calmar,
    max_drawdown,
    sharpe,
    sortino,
)
from kronos_strategies.evaluation.portfolio.sharpe import infer_sharpe
from kronos_strategies.evaluation.significance import mean_test

pytest.importorskip("arch")
pytest.importorskip("empyrical")


FIGURES = ["annual_return", "volatility", "sharpe", "sortino", "calmar", "max_drawdown"]
WEIGHTS = {"S1": 0.5, "S6": 0.5}


def test_performance_is_of_net_gross_and_benchmarks_annualized_by_the_results_own_year(book):
    result = book(WEIGHTS)
    books = evaluate_portfolio(result).performance
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
    study, net, gross = evaluate_portfolio(result, trials=7), result.returns["net"], result.returns["gross"]
    figures, sure = study.metrics(), infer_sharpe(result.returns["net"], 100, trials=7)
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
        "qlib_net_max_drawdown": study.qlib_metrics["net_max_drawdown"],
    }  # fmt: skip
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_metrics_have_all_their_names_and_are_json(book):
    figures = evaluate_portfolio(book(WEIGHTS)).metrics()
    own = "annual_return volatility sharpe sharpe_low sharpe_high psr dsr trials sortino calmar max_drawdown"
    costs = "gross_annual_return gross_sharpe annual_cost turnover break_even_bps"
    by_benchmark = (
        "{0}_annual_return {0}_sharpe {0}_max_drawdown beta_{0} active_return_{0} information_ratio_{0}"
    )
    benchmarks = [name for b in ("benchmark", "equal_weight") for name in by_benchmark.format(b).split()]
    ours = [name for name in figures if not name.startswith("qlib_")]
    assert ours == [*own.split(), *costs.split(), *benchmarks]
    assert len(figures) == len(ours) + 9
    assert json.loads(json.dumps(figures)) == figures


def test_the_parts_are_of_the_net_returns(book, exposures):
    result = book(WEIGHTS)
    study = evaluate_portfolio(result, exposures)
    net = result.returns["net"]
    assert study.drawdowns["depth"].iloc[0] == max_drawdown(net)
    assert study.months["year"].iloc[0] == pytest.approx((1 + net).prod() - 1)
    assert study.costs.loc[10, "sharpe"] == pytest.approx(sharpe(net, 100))  # the book pays 10 of each side
    np.testing.assert_allclose(study.tilts["size"], 0.5)
    np.testing.assert_allclose(study.exposure["gross"], 1.0)
    assert study.result is result


def test_without_exposures_there_are_no_tilts(book, days):
    tilts = evaluate_portfolio(book(WEIGHTS)).tilts
    assert tilts.empty
    assert tilts.index.equals(days)


def test_equal_seeds_give_equal_metrics(book):
    one, same, other = (evaluate_portfolio(book(WEIGHTS), seed=seed).metrics() for seed in (1, 1, 2))
    assert one == same
    assert {name for name in one if one[name] != other[name]} == {"sharpe_low", "sharpe_high"}


def test_a_result_without_bars_has_undefined_metrics(book, exposures):
    study = evaluate_portfolio(book(WEIGHTS, bars=0), exposures)
    figures = study.metrics()
    assert all(math.isnan(value) for name, value in figures.items() if name != "trials")
    assert study.exposure.empty
    assert study.drawdowns.empty
    assert study.months.empty


def test_one_bar_has_a_return_but_no_ratio(book, exposures):
    figures = evaluate_portfolio(book(WEIGHTS, bars=1), exposures).metrics()
    assert np.isfinite(figures["annual_return"])
    assert math.isnan(figures["sharpe"])
    assert math.isnan(figures["information_ratio_benchmark"])


def test_a_portfolio_that_never_invests_returns_zero_and_is_still_compared(book, days, exposures):
    idle = pd.Series(0.0, days)
    result = replace(book({}), returns=pd.DataFrame({"gross": idle, "net": idle}), turnover=idle, cost=idle)
    study = evaluate_portfolio(result, exposures)
    figures = study.metrics()
    assert [figures[name] for name in ("annual_return", "volatility", "max_drawdown", "turnover")] == [0] * 4
    assert all(math.isnan(figures[name]) for name in ("sharpe", "sortino", "calmar", "psr", "break_even_bps"))
    assert figures["active_return_benchmark"] == pytest.approx(-result.benchmarks["benchmark"].mean() * 100)
    assert (study.exposure == 0).all(axis=None)
    assert study.tilts.isna().all(axis=None)
    assert study.drawdowns.empty


def test_a_total_loss_is_reported_as_one(book):
    result = book(WEIGHTS)
    lost = result.returns.copy()
    lost.iloc[30] = -1.0
    study = evaluate_portfolio(replace(result, returns=lost))
    assert study.metrics()["annual_return"] == study.metrics()["max_drawdown"] == -1.0
    assert pd.isna(study.drawdowns["end"].iloc[0])


def test_a_gap_in_a_benchmark_does_not_affect_the_portfolio(book):
    result, gapped = book(WEIGHTS), book(WEIGHTS).benchmarks.copy()
    gapped.iloc[:10, 0] = np.nan
    whole, holed = (
        evaluate_portfolio(result).metrics(),
        evaluate_portfolio(replace(result, benchmarks=gapped)).metrics(),
    )
    changed = {name for name in whole if whole[name] != holed[name]}
    assert "beta_benchmark" in changed
    assert all("benchmark" in name for name in changed)
    assert all(map(math.isfinite, holed.values()))


@pytest.mark.parametrize("name", ["net", "gross"])
def test_a_benchmark_with_the_name_of_the_portfolio_is_refused(book, name):
    result = book(WEIGHTS)
    named = result.benchmarks.rename(columns={"benchmark": name})
    with pytest.raises(ValueError, match=f"A benchmark is named '{name}'"):
        evaluate_portfolio(replace(result, benchmarks=named))


pytest.importorskip("empyrical")


DAYS = pd.bdate_range("2022-01-03", periods=500, name="datetime")
COLUMNS = [
    "active_return", "low", "high", "tracking_error", "information_ratio", "beta", "alpha", "correlation",
]  # fmt: skip


def market(seed: int = 0) -> pd.Series:
    return pd.Series(np.random.default_rng(seed).normal(0.0004, 0.01, len(DAYS)), DAYS)


def table(net: pd.Series, bars_per_year: int = 252, **benchmarks: pd.Series) -> pd.DataFrame:
    return benchmark_relative(net, pd.DataFrame(benchmarks), bars_per_year)


def test_a_planted_beta_and_alpha_are_found():
    row = table(0.7 * market() + 0.0002, index=market()).loc["index"]
    assert row["beta"] == pytest.approx(0.7)
    assert row["alpha"] == pytest.approx(0.0002 * 252)
    assert row["correlation"] == pytest.approx(1)


def test_active_return_is_alpha_and_what_beta_adds_to_the_market():
    row = table(0.7 * market() + market(1), index=market()).loc["index"]
    assert row["active_return"] == pytest.approx(row["alpha"] + (row["beta"] - 1) * market().mean() * 252)


def test_the_information_ratio_is_annualized_active_return_over_tracking_error():
    net = market() + market(1)
    row, other = (table(net, n, index=market()).loc["index"] for n in (252, 100))
    assert row["information_ratio"] == pytest.approx(market(1).mean() / market(1).std() * np.sqrt(252))
    assert row["information_ratio"] == pytest.approx(row["active_return"] / row["tracking_error"])
    assert other["information_ratio"] == pytest.approx(row["information_ratio"] * np.sqrt(100 / 252))


def test_the_interval_is_that_of_the_mean_of_differences():
    row, test = table(market() + market(1), 100, index=market()).loc["index"], mean_test(market(1))
    assert row["low"] == pytest.approx(100 * test.low)
    assert row["high"] == pytest.approx(100 * test.high)
    assert row["low"] < row["active_return"] < row["high"]


def test_the_interval_covers_zero_95_times_of_100_without_skill():
    rows = [table(market() + market(seed) - 0.0004, index=market()).loc["index"] for seed in range(1, 201)]
    assert np.mean([row["low"] <= 0 <= row["high"] for row in rows]) == pytest.approx(0.95, abs=0.035)


def test_metrics_are_those_of_statsmodels_and_empyrical():
    api, empyrical = pytest.importorskip("statsmodels.api"), pytest.importorskip("empyrical")
    net, index = 0.9 * market() + market(1), market()
    row, line = table(net, index=index).loc["index"], api.OLS(net, api.add_constant(index)).fit()
    assert row["alpha"] == pytest.approx(line.params.iloc[0] * 252)
    assert row["beta"] == pytest.approx(line.params.iloc[1])
    assert row["correlation"] ** 2 == pytest.approx(line.rsquared)
    assert row["beta"] == pytest.approx(empyrical.beta(net, index))
    assert row["information_ratio"] == pytest.approx(empyrical.excess_sharpe(net, index) * np.sqrt(252))


def test_each_benchmark_has_a_row_in_its_order_and_by_its_name():
    frame = benchmark_relative(market(), pd.DataFrame({"index": market(1), "equal weight": market(2)}), 252)
    assert frame.index.tolist() == ["index", "equal weight"]
    assert frame.columns.tolist() == COLUMNS
    alone = table(market(), index=market(1))
    pd.testing.assert_series_equal(frame.loc["index"], alone.loc["index"])


def test_a_bar_that_either_lacks_is_left_out_of_that_row_only():
    gapped = market(1).copy()
    gapped.iloc[[0, 7]] = np.nan, np.inf
    frame, kept = table(market(), gapped=gapped, whole=market(1)), DAYS.delete([0, 7])
    pd.testing.assert_series_equal(
        frame.loc["gapped"], table(market()[kept], gapped=market(1)[kept]).loc["gapped"]
    )
    pd.testing.assert_series_equal(frame.loc["whole"], table(market(), whole=market(1)).loc["whole"])


@pytest.mark.parametrize("rounding", [0.0, 1e-16])
def test_a_benchmark_that_equals_the_portfolio_has_no_interval(rounding):
    row = table(market(), index=market() * (1 + rounding * np.sign(market(1)))).loc["index"]
    assert row[["active_return", "tracking_error"]].tolist() == [0, 0]
    assert row[["beta", "correlation"]].tolist() == pytest.approx([1, 1])
    assert row["alpha"] == pytest.approx(0, abs=1e-15)
    assert row[["low", "high", "information_ratio"]].isna().all()


def test_a_constant_benchmark_has_no_beta():
    row = table(market(), cash=pd.Series(0.0001, DAYS)).loc["cash"]
    assert row[["beta", "alpha", "correlation"]].isna().all()
    assert row["active_return"] == pytest.approx((market().mean() - 0.0001) * 252)


def test_constant_returns_have_no_correlation():
    row = table(pd.Series(0.0001, DAYS), index=market()).loc["index"]
    assert row["beta"] == pytest.approx(0, abs=1e-15)
    assert row["alpha"] == pytest.approx(0.0252)
    assert np.isnan(row["correlation"])


@pytest.mark.parametrize("bars", [0, 1])
def test_one_or_zero_bars_have_no_deviation_and_no_regression(bars):
    row = table(market()[:bars], index=market()[:bars]).loc["index"]
    assert row.drop("active_return").isna().all()
    assert np.isnan(row["active_return"]) == (bars == 0)


def test_a_benchmark_without_a_return_has_no_metrics():
    assert table(market(), unknown=pd.Series(np.nan, DAYS)).isna().all(axis=None)


def test_no_benchmarks_make_no_rows():
    frame = benchmark_relative(market(), pd.DataFrame(index=DAYS), 252)
    assert frame.empty
    assert frame.columns.tolist() == COLUMNS


def test_gross_counts_shorts_and_net_takes_them_off(book, days):
    frame = gross_net_exposure(book({"S0": 0.6, "S1": -0.25, "S2": 0.0}))
    assert frame.columns.tolist() == ["gross", "net", "positions"]
    assert frame.index.equals(days)
    np.testing.assert_allclose(frame, [[0.85, 0.35, 2]] * len(days))


def test_a_bar_that_holds_nothing_has_no_exposure(book, days):
    result = book({"S0": 0.5, "S1": 0.5})
    frame = gross_net_exposure(replace(result, weights=result.weights.drop(days[7], level="datetime")))
    assert frame.loc[days[7]].tolist() == [0, 0, 0]
    assert frame.loc[days[8]].tolist() == [1, 1, 2]


def test_the_order_of_the_weights_does_not_matter(book, exposures):
    result = book({"S0": 0.6, "S1": -0.25})
    turned = replace(result, weights=result.weights.swaplevel().sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(gross_net_exposure(turned), gross_net_exposure(result))
    pd.testing.assert_frame_equal(factor_tilts(turned, exposures), factor_tilts(result, exposures))


def test_an_instrument_held_twice_on_a_date_is_refused(book):
    result = book({"S0": 0.5})
    with pytest.raises(ValueError, match=r"The weights have .* twice"):
        gross_net_exposure(replace(result, weights=pd.concat([result.weights, result.weights[:1]])))


@pytest.mark.parametrize(
    ("weights", "tilt"),
    [
        ({"S7": 1.0}, 7.5 / 8),  # the largest of eight
        ({"S0": 0.2}, 0.5 / 8),
        ({"S6": 0.3, "S7": 0.1}, (0.75 * 6.5 + 0.25 * 7.5) / 8),
        ({f"S{i}": 0.125 for i in range(8)}, 0.5),
        ({"S0": 0.5, "S7": 0.5}, 0.5),
        ({"S0": -0.5, "S7": 0.5}, 7.5 / 8),  # long the largest and short the smallest
        ({"S7": -1.0}, 0.5 / 8),
    ],
)
def test_a_tilt_is_the_mean_percentile_of_the_held_instruments(book, exposures, weights, tilt):
    tilts = factor_tilts(book(weights), exposures)
    assert tilts.columns.tolist() == ["size", "momentum"]
    np.testing.assert_allclose(tilts["size"], tilt)


def test_only_what_ranks_matters_to_a_tilt(book, exposures):
    tilts = factor_tilts(book({"S1": 0.4, "S5": 0.6}), exposures.assign(size=np.exp(exposures["size"])))
    np.testing.assert_allclose(tilts["size"], (0.4 * 1.5 + 0.6 * 5.5) / 8)


def test_ties_share_their_percentile(book, exposures):
    tilts = factor_tilts(book({"S7": 1.0}), exposures.assign(size=1.0))
    np.testing.assert_allclose(tilts["size"], 0.5)


@pytest.mark.parametrize("unknown", [np.nan, np.inf])
def test_an_instrument_whose_exposure_is_unknown_is_left_out(book, exposures, unknown):
    exposures = exposures.assign(size=exposures["size"].where(exposures["size"] > 1, unknown))
    tilts = factor_tilts(book({"S0": 0.9, "S7": 0.1}), exposures)
    np.testing.assert_allclose(tilts["size"], 5.5 / 6)


def test_there_is_no_tilt_where_no_held_instrument_has_an_exposure(book, days, exposures):
    unknown = exposures.copy()
    unknown.loc[(days[3], "S7"), "size"] = np.nan
    tilts = factor_tilts(book({"S7": 1.0}), unknown.drop(days[5], level="datetime"))
    assert tilts["size"].isna().tolist() == [day in (days[3], days[5]) for day in days]
    assert factor_tilts(book({"S99": 1.0}), exposures).isna().all(axis=None)
    assert factor_tilts(book({}), exposures).isna().all(axis=None)


def test_groups_have_no_percentile(book, exposures):
    tilts = factor_tilts(book({"S7": 1.0}), exposures.assign(industry="banks"))
    assert tilts.columns.tolist() == ["size", "momentum"]


def test_dates_outside_the_backtest_do_not_matter(book, exposures, days):
    result = book({"S7": 0.5, "S3": 0.5}, bars=20)
    tilts = factor_tilts(result, exposures)
    assert tilts.index.equals(days[:20])
    pd.testing.assert_frame_equal(tilts, factor_tilts(result, exposures.loc[days[0] : days[19]]))


def test_an_exposure_given_twice_is_refused(book, exposures):
    with pytest.raises(ValueError, match=r"The exposures have .* twice"):
        factor_tilts(book({"S7": 1.0}), pd.concat([exposures, exposures[:1]]))
