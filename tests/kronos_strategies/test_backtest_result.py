import pandas as pd
import pytest

from kronos_strategies.backtest_result import BARS_PER_YEAR, BacktestResult, bars_per_year

DAYS = pd.bdate_range("2024-01-01", periods=3, name="datetime")
ALL_DAYS = pd.date_range("2024-01-01", periods=300)
HALF_HOURS = pd.DatetimeIndex(
    [
        day + pd.Timedelta(minutes=30 * i)
        for day in pd.bdate_range("2024-01-01", periods=20)
        for i in range(13)
    ]
)
NONE = pd.MultiIndex.from_arrays([DAYS[:0], pd.Index([], dtype=str)], names=["datetime", "instrument"])


def result(weights: pd.Series) -> BacktestResult:
    return BacktestResult(
        returns=pd.DataFrame({"gross": 0.01, "net": 0.009}, index=DAYS),
        benchmarks=pd.DataFrame({"benchmark": 0.0}, index=DAYS),
        turnover=pd.Series(0.1, DAYS),
        cost=pd.Series(0.001, DAYS),
        weights=weights,
    )


def test_positions_are_counted_at_each_close_long_or_short():
    keys = [(DAYS[0], "A"), (DAYS[0], "B"), (DAYS[2], "A"), (DAYS[2], "B"), (DAYS[2], "C")]
    index = pd.MultiIndex.from_tuples(keys, names=["datetime", "instrument"])
    positions = result(pd.Series([0.5, -0.5, 0.4, 0.0, float("nan")], index)).positions
    assert positions.to_dict() == {DAYS[0]: 2, DAYS[1]: 0, DAYS[2]: 1}
    assert positions.dtype == int


def test_a_portfolio_that_never_invests_holds_nothing():
    assert result(pd.Series([], NONE, dtype=float)).positions.to_dict() == dict.fromkeys(DAYS, 0)


def test_a_year_has_252_bars_by_default():
    assert result(pd.Series([], NONE, dtype=float)).bars_per_year == BARS_PER_YEAR == 252


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pd.bdate_range("2024-01-01", periods=100), 252),
        (pd.date_range("2024-01-01", periods=100), 365),
        (pd.date_range("2020-01-01", periods=100, freq="W"), 52),
        (pd.date_range("2020-01-01", periods=50, freq="ME"), 12),
        (pd.date_range("2024-01-01", periods=3000, freq="5min"), 365 * 288),
        (HALF_HOURS, 252 * 13),
        (DAYS[:1], 252),
        # FX in UTC has bars on Sundays, Riyadh trades from Sunday to Thursday.
        (ALL_DAYS[ALL_DAYS.day_of_week != 5], 252),
        (ALL_DAYS[~ALL_DAYS.day_of_week.isin([4, 5])], 252),
        # NSE trades on a Saturday now and then.
        (pd.bdate_range("2019-01-01", periods=500).append(pd.DatetimeIndex(["2020-12-05"])), 252),
    ],
)
def test_bars_per_year_follow_from_the_bars(times, expected):
    assert bars_per_year(times) == expected
