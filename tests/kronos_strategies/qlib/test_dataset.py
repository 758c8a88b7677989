import shutil

import numpy as np
import pandas as pd
import pytest
from qlib.data import D

from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.market import traded_bars

from .conftest import use_store

SPAN = ("2023-02-01", "2023-03-31")


def dataset(**changes) -> KronosDataset:
    return KronosDataset(**{"segments": {"test": SPAN}, "lookback": 40, **changes})


def traded(market, name: str) -> pd.DataFrame:
    """The simulated bars of one name, adjusted by hand."""
    bars = market.bars[market.bars["instrument"] == name].set_index("datetime").sort_index()
    for price in ("open", "high", "low", "close"):
        bars[price] *= bars["factor"]
    bars["volume"] /= bars["factor"]
    return bars


def test_a_window_holds_the_last_traded_bars_whoever_was_a_member_then(in_store, small_market):
    windows = dataset().windows()
    for i in (0, len(windows) // 2, len(windows) - 1):
        date, name = windows.keys[i]
        bars = traded(small_market, name).loc[:date].tail(40)
        expected = bars[["open", "high", "low", "close", "volume", "amount"]].to_numpy()
        np.testing.assert_allclose(windows[i : i + 1].values[0], expected, rtol=1e-5)


def test_only_members_that_traded_on_the_day_get_a_window(in_store, small_market):
    keys = dataset(min_bars=2).windows().keys
    spans = small_market.membership
    expected = {
        (row.datetime, row.instrument)
        for row in small_market.bars.itertuples()
        if pd.Timestamp(SPAN[0]) <= row.datetime <= pd.Timestamp(SPAN[1])
        and (
            (spans["instrument"] == row.instrument)
            & (spans["start"] <= row.datetime)
            & (row.datetime <= spans["end"])
        ).any()
    }
    assert set(keys) == expected


def test_a_name_that_joins_the_market_is_scored_on_its_first_day(in_store, small_market):
    spans = small_market.membership
    joined = spans[(spans["start"] >= "2023-04-01") & (spans["start"] <= "2023-04-30")]
    assert len(joined) == 1, "the small market reviews its index in April 2023"
    first, name = joined["start"].iloc[0], joined["instrument"].iloc[0]
    windows = dataset(segments={"test": ("2023-04-03", "2023-04-28")}).windows()
    dates = windows.keys[windows.keys.get_level_values("instrument") == name].get_level_values("datetime")
    assert dates[0] == first
    assert (
        windows[windows.keys.get_loc((first, name)) : windows.keys.get_loc((first, name)) + 1].lengths[0]
        == 40
    )


def test_future_timestamps_are_the_next_days_of_the_calendar(in_store):
    windows = dataset(hold=3).windows()
    assert dataset(horizon=7).windows().horizon == 7
    calendar = pd.DatetimeIndex(D.calendar(future=True))
    for date, future in zip(
        windows.keys.get_level_values("datetime")[::37], windows.future[::37], strict=True
    ):
        at = calendar.get_loc(date)
        assert list(pd.DatetimeIndex(future)) == list(calendar[at + 1 : at + 5])


def test_the_last_day_of_the_store_still_has_future_timestamps(in_store, small_market):
    last = small_market.bars["datetime"].max()
    windows = dataset(segments={"test": (str(last.date()), str(last.date()))}).windows()
    assert len(windows)
    assert (pd.DatetimeIndex(windows.future.ravel()) > last).all()


@pytest.mark.parametrize(("hold", "price"), [(1, "close"), (3, "close"), (1, "open")])
def test_the_label_is_the_return_that_a_signal_of_that_day_can_trade(in_store, small_market, hold, price):
    label = dataset(hold=hold, deal_price=price).prepare("test", col_set="label").iloc[:, 0].dropna()
    calendar = pd.DatetimeIndex(D.calendar())
    checked = 0
    for (date, name), value in label.iloc[::97].items():
        bars = traded(small_market, name)[price].reindex(calendar)
        at = calendar.get_loc(date)
        assert value == pytest.approx(bars.iloc[at + 1 + hold] / bars.iloc[at + 1] - 1, rel=1e-3, abs=1e-5)
        checked += 1
    assert checked > 5


def test_suspended_days_are_no_bars(in_store, small_market):
    names = sorted(small_market.bars["instrument"].unique())
    end = small_market.bars["datetime"].max()
    panel = traded_bars(names, end)
    for name in names:
        assert list(panel[name].index) == list(traded(small_market, name).index)


def test_an_unknown_market_is_refused_with_the_known_ones(in_store):
    with pytest.raises(ValueError, match=r"no market 'csi3000'.*csi300"):
        dataset(market="csi3000")


def test_a_segment_outside_the_store_is_refused_with_its_span(in_store):
    with pytest.raises(ValueError, match=r"Segment 'test'.*2022-01-03 to 2023-06-30.*KRONOS_TEST_START"):
        dataset(segments={"test": ("2030-01-01", "2030-12-31")})


def test_a_segment_without_a_trading_day_is_refused(in_store):
    with pytest.raises(ValueError, match=r"2023-03-04 to 2023-03-05 holds no trading day"):
        dataset(segments={"test": ("2023-03-04", "2023-03-05")})


def test_a_segment_that_ends_after_the_store_or_never_is_scored_as_far_as_bars_reach(in_store):
    for end in ("2023-07-31", None):
        late = dataset(segments={"test": ("2023-06-26", end)})
        dates = late.windows().keys.get_level_values("datetime")
        assert dates.max() == pd.Timestamp("2023-06-30")
        label = late.prepare("test", col_set="label")
        assert label.index.equals(late.windows().keys)


def test_without_a_future_calendar_the_last_day_is_scored_too(in_store, small_store, tmp_path):
    expected = dataset(segments={"test": ("2023-06-30", "2023-06-30")}, hold=3).windows().future
    shutil.copytree(small_store, tmp_path / "store")
    (tmp_path / "store" / "calendars" / "day_future.txt").unlink()
    use_store(tmp_path / "store")
    last = dataset(segments={"test": ("2023-06-30", "2023-06-30")}, hold=3).windows()
    assert len(last)
    np.testing.assert_array_equal(last.future, expected)


def test_a_benchmark_that_the_store_lacks_is_refused_before_anything_is_forecast(in_store):
    with pytest.raises(ValueError, match=r"no benchmark 'SH000905'.*KRONOS_BENCHMARK"):
        dataset(benchmark="SH000905")
    dataset(benchmark="SH000300")


def test_a_missing_store_is_refused_with_both_remedies(small_store, tmp_path):
    import qlib

    qlib.init(provider_uri=str(tmp_path / "nowhere"), region="cn", kernels=1)
    with pytest.raises(FileNotFoundError, match=r"kronos data import.*KRONOS_QLIB_DATA"):
        dataset()


@pytest.mark.parametrize("change", [{"hold": 0}, {"deal_price": "vwap"}, {"horizon": 1}])
def test_an_impossible_trade_is_refused(in_store, change):
    (name,) = change
    with pytest.raises(ValueError, match=name):
        dataset(**change)
