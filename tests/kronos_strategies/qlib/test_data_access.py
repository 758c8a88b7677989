import numpy as np
import pandas as pd
import pytest
from qlib.data import D

from kronos_strategies.qlib.artifacts import backtest_result
from kronos_strategies.qlib.data_access import StoreBars, member_rows, traded_bars

SPAN = ("2023-05-03", "2023-05-12")


def members() -> pd.MultiIndex:
    frame = D.features(D.instruments("csi300"), ["$close"], *SPAN)
    return frame.index.reorder_levels(["datetime", "instrument"]).sort_values()


def equal_weight(dates: pd.DatetimeIndex) -> pd.Series:
    rows = member_rows("csi300", dates[0], dates[-1])
    return StoreBars.read(sorted(rows.get_level_values("instrument").unique())).equal_weight(rows, dates)


def test_equal_weight_is_the_mean_return_of_the_members_that_traded(in_store, small_market):
    dates = pd.DatetimeIndex(D.calendar(*SPAN))
    returns = equal_weight(dates)
    date = dates[3]
    names = members()[members().get_level_values("datetime") == date].get_level_values("instrument")
    closes = pd.DataFrame({n: bars["close"] for n, bars in traded_bars(sorted(names), date).items()})
    calendar = pd.DatetimeIndex(D.calendar())
    day, before = closes.reindex(calendar).loc[date], closes.reindex(calendar).loc[dates[2]]
    assert returns[date] == pytest.approx(np.nanmean(day / before - 1), abs=1e-7)


def test_a_member_earns_what_happened_while_it_was_suspended_on_the_day_it_trades_again(
    in_store, small_market
):
    bars = small_market.bars[small_market.bars["datetime"] >= "2022-03-01"]
    days = pd.DatetimeIndex(sorted(bars["datetime"].unique()))
    found = 0
    for name, own in bars.groupby("instrument"):
        at = days.get_indexer(pd.DatetimeIndex(own["datetime"]))
        for i in np.flatnonzero(np.diff(at) > 1):
            date, close = days[at[i + 1]], own["close"] * own["factor"]
            members_then = D.features(D.instruments("csi300"), ["$close"], date, date).index
            if name not in members_then.get_level_values("instrument"):
                continue
            move = close.iloc[i + 1] / close.iloc[i] - 1
            around = pd.DatetimeIndex(D.calendar(days[at[i + 1] - 1], date))
            whole = equal_weight(around)[date] * len(members_then)
            others = D.features(
                [n for n in members_then.get_level_values("instrument") if n != name],
                ["$close/Ref($close,1)-1"], date, date,
            ).iloc[:, 0]  # fmt: skip
            if others.notna().all():
                assert whole == pytest.approx(others.sum() + move, abs=1e-5)
                found += 1
    assert found, "the small market has such a day"


def test_the_result_starts_with_the_first_purchase_and_benchmarks_earn_from_its_close():
    days = pd.bdate_range("2024-01-01", periods=4)
    columns = {
        "return": [0.0, 0.0, 0.02, 0.01],
        "cost": [0.0, 0.001, 0.0, 0.0],
        "turnover": [0.0, 1.0, 0.0, 0.0],
    }
    traded = pd.DataFrame({**columns, "bench": 0.01}, index=days)

    class Book:
        def __init__(self, names):
            self.names = names

        def get_stock_weight_dict(self, only_stock):
            return dict.fromkeys(self.names, 0.9)

    held = {day: Book(["A"] * bool(i)) for i, day in enumerate(days)}
    result = backtest_result(traded, held, pd.Series(0.03, days))
    assert list(result.returns.index) == list(days[1:])
    assert result.weights.to_dict() == {(day, "A"): 0.9 for day in days[1:]}
    assert result.positions.tolist() == [1, 1, 1]
    assert result.returns["net"].tolist() == [-0.001, 0.02, 0.01]
    assert result.benchmarks["benchmark"].tolist() == [0.0, 0.01, 0.01]
    assert result.benchmarks["equal weight"].tolist() == [0.0, 0.03, 0.03]


def test_bars_end_with_the_date_asked_for(in_store):
    panel = traded_bars(["SH609001"], pd.Timestamp("2023-03-15"))
    assert panel["SH609001"].index[-1] <= pd.Timestamp("2023-03-15")
    assert np.isfinite(panel["SH609001"].to_numpy()).all()
