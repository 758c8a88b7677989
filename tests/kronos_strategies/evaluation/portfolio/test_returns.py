"""Returns compound from 1, a loss on the first bar counts, and what is undefined is NaN."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_strategies.evaluation.portfolio.returns import (
    annual_return,
    break_even_bps,
    calmar,
    cost_table,
    deepest_drawdowns,
    drawdowns,
    max_drawdown,
    month_table,
    qlib_metrics,
    sharpe,
    sortino,
    volatility,
)

pytest.importorskip("empyrical")


NONE = pd.Series([], dtype=float)
FIGURES = (annual_return, volatility, sharpe, sortino, calmar, max_drawdown)
YEARLY = FIGURES[:-1]
streams = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=40).map(lambda values: pd.Series(values))


def drawn(bars: int = 600, seed: int = 0) -> pd.Series:
    """A first bar of -5 % before 0.05 +- 1 %."""
    returns = np.random.default_rng(seed).normal(0.0005, 0.01, bars)
    returns[0] = -0.05
    return pd.Series(returns, pd.bdate_range("2020-01-01", periods=bars))


def test_a_year_of_bars_earns_its_own_compound_return():
    assert annual_return(pd.Series([0.1, -0.05, 0.2]), bars_per_year=3) == pytest.approx(1.1 * 0.95 * 1.2 - 1)


def test_half_a_year_is_squared_and_two_years_are_rooted():
    returns = pd.Series([0.1, 0.1])
    assert annual_return(returns, bars_per_year=4) == pytest.approx(1.1**4 - 1)
    assert annual_return(returns, bars_per_year=1) == pytest.approx(0.1)


@pytest.mark.parametrize("figure", YEARLY)
def test_a_year_has_252_bars_by_default(figure):
    assert figure(drawn()) == figure(drawn(), 252) != figure(drawn(), 238)


def test_a_total_loss_has_an_annual_return_of_minus_one():
    returns = pd.Series([0.1, -1.0, 0.5])
    assert annual_return(returns) == -1.0
    assert max_drawdown(returns) == -1.0
    assert calmar(returns) == -1.0


@pytest.mark.parametrize("returns", [[-1.5, 0.1, 0.1], [-1.5, -1.5, 0.1]])
def test_more_than_all_lost_is_a_total_loss(returns):
    assert annual_return(pd.Series(returns), bars_per_year=2) == -1.0
    assert drawdowns(pd.Series(returns)).tolist() == [-1.0, -1.0, -1.0]


def test_sharpe_is_mean_over_deviation_times_root_of_bars():
    returns = pd.Series([0.01, -0.02, 0.03, 0.005])
    deviation = math.sqrt(sum((r - 0.00625) ** 2 for r in returns) / 3)
    assert sharpe(returns, bars_per_year=4) == pytest.approx(0.00625 / deviation * 2)
    assert volatility(returns, bars_per_year=4) == pytest.approx(deviation * 2)


def test_sortino_divides_by_losses_over_all_bars():
    returns = pd.Series([0.01, -0.02, 0.03, 0.005])
    assert sortino(returns, bars_per_year=4) == pytest.approx(0.00625 / math.sqrt(0.02**2 / 4) * 2)


def test_calmar_is_growth_over_maximum_drawdown():
    returns = pd.Series([0.01, -0.02, 0.03, 0.005])
    assert calmar(returns, bars_per_year=4) == pytest.approx((1.01 * 0.98 * 1.03 * 1.005 - 1) / 0.02)


def test_returns_without_losses_have_neither_sortino_nor_calmar():
    assert math.isnan(sortino(pd.Series([0.01, 0.0, 0.02])))
    assert math.isnan(calmar(pd.Series([0.01, 0.0, 0.02])))


@pytest.mark.parametrize("level", [0.0, 0.001, -0.1, 1e-20])
@pytest.mark.parametrize("bars", [1, 2, 7, 252])
def test_constant_returns_have_no_sharpe_and_no_volatility(level, bars):
    returns = pd.Series([level] * bars)
    assert math.isnan(sharpe(returns))
    assert math.isnan(volatility(returns)) if bars == 1 else volatility(returns) == 0.0


def test_leverage_does_not_change_the_sharpe_ratio():
    returns = pd.Series(np.random.default_rng(0).normal(0.001, 0.01, 50))
    assert sharpe(3e-6 * returns) == pytest.approx(sharpe(returns))
    assert sharpe(-returns) == pytest.approx(-sharpe(returns))


def test_a_loss_on_the_first_bar_counts():
    assert max_drawdown(pd.Series([-0.1, 0.02, 0.01])) == pytest.approx(-0.1)
    np.testing.assert_allclose(drawdowns(pd.Series([-0.1, 0.02, 0.01])), [-0.1, 0.918 - 1, 0.92718 - 1])


def test_drawdowns_compound():
    assert max_drawdown(pd.Series([0.5, -0.1, -0.1, 0.3])) == pytest.approx(0.9 * 0.9 - 1)  # summed: -0.2


@given(streams)
def test_max_drawdown_is_the_worst_of_all_pairs_of_bars(returns):
    wealth = [1.0, *(1 + returns).cumprod()]
    worst = min(later / earlier - 1 for i, earlier in enumerate(wealth) for later in wealth[i:])
    assert max_drawdown(returns) == pytest.approx(worst)
    assert drawdowns(returns).min() == max_drawdown(returns)


@given(streams)
def test_drawdowns_lie_between_a_total_loss_and_none(returns):
    below = drawdowns(returns)
    assert below.index.equals(returns.index)
    assert below.between(-1, 0).all()


def test_a_rising_portfolio_has_no_drawdown():
    assert max_drawdown(pd.Series([0.01, 0.0, 0.02])) == 0.0


@pytest.mark.parametrize("figure", FIGURES)
def test_no_returns_give_no_metric(figure):
    assert math.isnan(figure(NONE))
    assert math.isnan(figure(pd.Series([np.nan, np.nan])))


def test_no_returns_have_no_drawdowns():
    assert drawdowns(NONE).empty


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_a_bar_without_a_return_is_left_out(figure, nothing):
    returns = pd.Series([0.01, -0.02, 0.03, -0.01])
    gapped = pd.Series([0.01, nothing, -0.02, 0.03, nothing, -0.01])
    assert figure(gapped) == pytest.approx(figure(returns))


def test_a_bar_without_a_return_leaves_wealth_where_it_was():
    np.testing.assert_allclose(drawdowns(pd.Series([0.1, -0.2, np.nan, 0.1])), [0, -0.2, -0.2, -0.12])


def test_wealth_beyond_the_range_of_floats_is_undefined():
    assert math.isnan(annual_return(pd.Series([30.0])))


def test_returns_of_whole_numbers_are_returns_too():
    assert annual_return(pd.Series([1, 0]), bars_per_year=2) == 1.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_metrics_are_those_of_quantstats():
    theirs = pytest.importorskip("quantstats").stats
    returns = drawn()
    assert sharpe(returns) == pytest.approx(theirs.sharpe(returns, periods=252))
    assert sortino(returns) == pytest.approx(theirs.sortino(returns, periods=252))
    assert calmar(returns) == pytest.approx(theirs.calmar(returns, periods=252))
    assert annual_return(returns) == pytest.approx(theirs.cagr(returns, periods=252))
    assert max_drawdown(returns) == pytest.approx(theirs.max_drawdown(returns))


pytest.importorskip("empyrical")


MONTH_COLUMNS = [*range(1, 13), "year"]


def test_months_and_years_compound():
    days = pd.to_datetime(["2023-12-28", "2023-12-29", "2024-01-02", "2024-03-01", "2024-03-04"])
    table = month_table(pd.Series([0.1, -0.05, 0.2, 0.01, 0.02], days))
    assert table.index.tolist() == [2023, 2024]
    assert table.columns.tolist() == MONTH_COLUMNS
    assert table.loc[2023, [12, "year"]].tolist() == pytest.approx([1.1 * 0.95 - 1] * 2)
    assert table.loc[2024, [1, 3]].tolist() == pytest.approx([0.2, 1.01 * 1.02 - 1])
    assert table.loc[2024, "year"] == pytest.approx(1.2 * 1.01 * 1.02 - 1)
    assert table.notna().to_numpy().sum() == 5


def test_years_are_their_months_and_all_years_are_all_bars():
    days = pd.bdate_range("2020-05-11", "2023-02-14")
    returns = pd.Series(np.random.default_rng(0).normal(0, 0.01, len(days)), days)
    table = month_table(returns)
    np.testing.assert_allclose((1 + table.drop(columns="year")).prod(axis=1), 1 + table["year"])
    assert (1 + table["year"]).prod() == pytest.approx((1 + returns).prod())


def test_a_month_without_a_return_is_empty_and_not_zero():
    days = pd.to_datetime(["2024-01-02", "2024-02-01", "2024-02-02"])
    table = month_table(pd.Series([np.nan, 0.1, np.inf], days))
    assert np.isnan(table.loc[2024, 1])
    assert table.loc[2024, 2] == pytest.approx(0.1)


def test_losses_of_more_than_everything_return_minus_one_in_month_and_year():
    days = pd.to_datetime(["2024-01-02", "2024-01-03", "2024-01-04"])
    assert month_table(pd.Series([-1.5, -1.5, 0.1], days)).loc[2024, [1, "year"]].tolist() == [-1.0, -1.0]


def test_one_bar_makes_one_month():
    table = month_table(pd.Series([0.1], pd.to_datetime(["2024-07-01"])))
    assert table.loc[2024].dropna().to_dict() == pytest.approx({7: 0.1, "year": 0.1})


def test_no_bars_make_no_year():
    table = month_table(pd.Series([], pd.DatetimeIndex([]), dtype=float))
    assert table.empty
    assert table.columns.tolist() == MONTH_COLUMNS


pytest.importorskip("empyrical")


LONG_DAYS = pd.bdate_range("2024-01-01", periods=400, name="datetime")


def stream(*returns: float) -> pd.Series:
    return pd.Series(returns, LONG_DAYS[: len(returns)], dtype=float)


def test_a_drawdown_lasts_from_its_first_bar_below_to_the_recovery():
    (fall,) = deepest_drawdowns(stream(0.1, -0.1, -0.1, 0.1, 0.2, 0.1)).itertuples()
    assert (fall.start, fall.trough, fall.end) == (LONG_DAYS[1], LONG_DAYS[2], LONG_DAYS[4])
    assert fall.depth == pytest.approx(0.81 - 1)
    assert fall.bars == 3


def test_a_first_bar_loss_is_a_drawdown():
    (fall,) = deepest_drawdowns(stream(-0.1, 0.2)).itertuples()
    assert (fall.start, fall.trough, fall.end, fall.bars) == (LONG_DAYS[0], LONG_DAYS[0], LONG_DAYS[1], 1)


def test_a_drawdown_without_recovery_has_no_end_and_lasts_to_the_last_bar():
    table = deepest_drawdowns(stream(0.1, -0.1, 0.2, -0.3, 0.1, 0.1))
    assert table["depth"].tolist() == pytest.approx([-0.3, -0.1])
    assert table["end"].isna().tolist() == [True, False]
    assert table["bars"].tolist() == [3, 1]


@pytest.mark.parametrize("fall", [0.05, 0.3])
def test_a_return_to_the_exact_high_is_a_recovery_despite_rounding(fall):
    table = deepest_drawdowns(stream(0.1, -fall, 1 / (1 - fall) - 1, 0.0, 0.1))
    assert table["end"].tolist() == [LONG_DAYS[2]]


def test_the_deepest_come_first_and_no_more_than_asked_for():
    falls = [-0.01, 0.02, -0.05, 0.06, -0.03, 0.04, -0.02, 0.03, -0.04, 0.05, -0.06, 0.07]
    assert deepest_drawdowns(stream(*falls))["depth"].tolist() == pytest.approx(
        [-0.06, -0.05, -0.04, -0.03, -0.02]
    )
    assert len(deepest_drawdowns(stream(*falls), count=2)) == 2


@pytest.mark.parametrize("returns", [(), (0.1, 0.0, 0.2), (np.nan, np.nan)])
def test_without_a_drawdown_there_are_no_rows_but_all_columns(returns):
    table = deepest_drawdowns(stream(*returns))
    assert list(table.columns) == ["start", "trough", "end", "depth", "bars"]
    assert table.empty
    assert table["start"].dtype.kind == table["end"].dtype.kind == "M"


def test_nothing_recovers_from_a_total_loss():
    (fall,) = deepest_drawdowns(stream(0.1, -1.0, 0.5, -2.0)).itertuples()
    assert (fall.start, fall.trough, fall.depth, fall.bars) == (LONG_DAYS[1], LONG_DAYS[1], -1.0, 3)
    assert pd.isna(fall.end)


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=60))
def test_drawdowns_cover_all_bars_below_the_high(values):
    returns = stream(*values)
    table = deepest_drawdowns(returns, count=len(returns))
    assert table["bars"].sum() == (drawdowns(returns) < -1e-12).sum()
    assert table["depth"].min() == pytest.approx(max_drawdown(returns)) or table.empty
    assert (table["depth"] == drawdowns(returns).loc[table["trough"]].to_numpy()).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_drawdowns_are_those_of_quantstats():
    stats = pytest.importorskip("quantstats").stats
    returns = pd.Series(np.random.default_rng(0).normal(0.001, 0.01, len(LONG_DAYS)), LONG_DAYS)
    theirs = stats.drawdown_details(stats.to_drawdown_series(returns)).sort_values("max drawdown").head(5)
    ours = deepest_drawdowns(returns)
    assert list(ours["start"]) == list(pd.to_datetime(theirs["start"]))
    assert list(ours["trough"]) == list(pd.to_datetime(theirs["valley"]))
    np.testing.assert_allclose(ours["depth"], theirs["max drawdown"] / 100)


pytest.importorskip("empyrical")


DAYS = pd.bdate_range("2024-01-01", periods=200, name="datetime")


@pytest.fixture
def gross() -> pd.Series:
    return pd.Series(np.random.default_rng(0).normal(0.001, 0.01, len(DAYS)), DAYS)


@pytest.fixture
def turnover() -> pd.Series:
    return pd.Series(np.random.default_rng(1).uniform(0.1, 0.3, len(DAYS)), DAYS)


def test_each_cost_is_taken_of_what_is_traded(gross, turnover):
    table = cost_table(gross, turnover, 100)
    assert table.index.tolist() == [0, 5, 10, 20, 30, 50]
    net = gross - 0.003 * turnover
    assert table.loc[30].tolist() == [annual_return(net, 100), sharpe(net, 100), max_drawdown(net)]
    assert table.loc[0, "annual_return"] == annual_return(gross, 100)


def test_higher_costs_lower_the_return(gross, turnover):
    table = cost_table(gross, turnover, 252)
    assert (table.diff().iloc[1:] < 0).all(axis=None)


def test_costs_do_not_matter_without_trades(gross):
    still = pd.Series(0.0, DAYS)
    table = cost_table(gross, still, 252)
    assert (table == table.iloc[0]).all(axis=None)
    assert math.isnan(break_even_bps(gross, still))


def test_at_break_even_costs_the_mean_return_is_zero(gross, turnover):
    bps = break_even_bps(gross, turnover)
    assert (gross - turnover * bps / 1e4).mean() == pytest.approx(0, abs=1e-15)
    table = cost_table(gross, turnover, 252)
    assert ((table["sharpe"] > 0) == (table.index < bps)).all()


def test_a_portfolio_that_loses_before_costs_has_a_negative_break_even(gross, turnover):
    assert break_even_bps(-gross, turnover) == -break_even_bps(gross, turnover) < 0


def test_a_bar_that_lacks_its_return_or_its_turnover_is_left_out(gross, turnover):
    gapped, unknown = gross.copy(), turnover.copy()
    gapped.iloc[3], unknown.iloc[5] = np.nan, np.inf
    kept = DAYS.delete([3, 5])
    assert break_even_bps(gapped, unknown) == pytest.approx(break_even_bps(gross[kept], turnover[kept]))


def test_costs_of_the_whole_portfolio_are_a_total_loss():
    table = cost_table(pd.Series([0.1, 0.1]), pd.Series([300.0, 300.0]), 252)
    assert table.loc[50].drop("sharpe").tolist() == [-1.0, -1.0]


def test_no_bars_have_no_metrics():
    none = pd.Series([], DAYS[:0], dtype=float)
    assert cost_table(none, none, 252).isna().all(axis=None)
    assert math.isnan(break_even_bps(none, none))


pytest.importorskip("empyrical")


QLIB_DAYS = pd.bdate_range("2022-01-03", periods=300, name="datetime")
QLIB_FIGURES = ("annualized_return", "information_ratio", "max_drawdown")


def drawn_by_day(seed: int) -> pd.Series:
    return pd.Series(np.random.default_rng(seed).normal(0.0004, 0.01, len(QLIB_DAYS)), QLIB_DAYS)


@pytest.mark.filterwarnings("ignore")
def test_metrics_are_those_of_qlib():
    risk_analysis = pytest.importorskip("qlib.contrib.evaluate").risk_analysis
    net, index, equal = drawn_by_day(0), drawn_by_day(1), drawn_by_day(2)
    ours = qlib_metrics(net, pd.DataFrame({"benchmark": index, "equal weight": equal}))
    streams = {
        "net": net, "excess_over_benchmark": net - index, "excess_over_equal_weight": net - equal,
    }  # fmt: skip
    assert set(ours) == {f"{of}_{name}" for of in streams for name in QLIB_FIGURES}
    for of, returns in streams.items():
        theirs = risk_analysis(returns, freq="day")["risk"]
        expected = [theirs[name] for name in QLIB_FIGURES]
        assert [ours[f"{of}_{name}"] for name in QLIB_FIGURES] == pytest.approx(expected)


def test_qlib_ignores_a_drawdown_from_the_first_bar():
    figures = qlib_metrics(pd.Series([-0.1, 0.02, 0.01]), pd.DataFrame(index=range(3)))
    assert figures["net_max_drawdown"] == 0


def test_a_year_of_minutes_has_as_many_bars_as_in_qlib():
    risk_analysis = pytest.importorskip("qlib.contrib.evaluate").risk_analysis
    ours = qlib_metrics(drawn_by_day(0), pd.DataFrame(index=QLIB_DAYS), 238 * 240 / 5)
    theirs = risk_analysis(drawn_by_day(0), freq="5min")["risk"]
    assert [ours[f"net_{name}"] for name in QLIB_FIGURES] == pytest.approx(
        [theirs[name] for name in QLIB_FIGURES]
    )


def test_a_bar_that_either_lacks_is_left_out():
    net, index = drawn_by_day(0), drawn_by_day(1)
    net.iloc[4], index.iloc[9] = np.nan, np.nan
    kept = QLIB_DAYS.delete([4, 9])
    ours = qlib_metrics(net, pd.DataFrame({"benchmark": index}))
    alone = qlib_metrics(net[kept], pd.DataFrame({"benchmark": index[kept]}))
    name = "excess_over_benchmark_information_ratio"
    assert ours[name] == pytest.approx(alone[name])


@pytest.mark.parametrize("values", [[], [0.1], [0.001] * 9])
def test_without_a_spread_there_is_no_information_ratio(values):
    figures = qlib_metrics(pd.Series(values, dtype=float), pd.DataFrame(index=range(len(values))))
    assert math.isnan(figures["net_information_ratio"])
    assert math.isnan(figures["net_annualized_return"]) == (not values)
