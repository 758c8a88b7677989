"""What of a feed's bars the model gets to read."""

from datetime import datetime, timedelta

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES
from kronos_strategies.backtrader.bars import Bars, utc_times
from kronos_strategies.backtrader.tape import LoadedFeed
from tests.kronos.builders import make_bars


def loaded(bars: pd.DataFrame, **options) -> bt.AbstractDataBase:
    cerebro = bt.Cerebro()
    feed = bt.feeds.PandasData(dataname=bars, **options)
    cerebro.adddata(feed, name="A")
    feed._start()
    feed.preload()
    return feed


def read(bars: pd.DataFrame, **options) -> Bars:
    feed = loaded(bars, **options)
    return Bars.read(feed, lambda line: line.array[: feed.buflen()])


def test_amount_is_volume_times_the_mean_price():
    bars = make_bars(10)
    values = read(bars).values
    np.testing.assert_allclose(values, bars[list(FEATURES)].to_numpy(np.float32), rtol=1e-6)


@pytest.mark.parametrize("price", [np.nan, np.inf, 0.0, -1.0])
def test_a_bar_without_four_finite_positive_prices_is_not_traded(price):
    bars = make_bars(10)
    bars.iloc[3, 1] = price
    found = read(bars)
    assert np.flatnonzero(~found.traded).tolist() == [3]
    assert len(found.utc) == 10
    assert len(found.values) == len(found.times) == 9


@pytest.mark.parametrize("volume", [np.nan, -5.0, np.inf])
def test_a_volume_that_is_none_counts_as_0(volume):
    bars = make_bars(10)
    bars.iloc[3, 4] = volume
    assert read(bars).values[3, 4:].tolist() == [0.0, 0.0]


def test_high_and_low_are_stretched_to_open_and_close():
    bars = make_bars(10)
    bars.iloc[3, :4] = [50.0, 49.0, 51.0, 52.0]
    assert read(bars).values[3, :4].tolist() == [50.0, 52.0, 49.0, 52.0]


def test_a_copy_is_read_so_that_the_feed_can_grow():
    feed = loaded(make_bars(10))
    kept = Bars.read(feed, lambda line: line.array[:10])
    feed.forward(size=5)
    assert len(kept.utc) == 10


def test_times_are_those_of_the_feeds_zone_on_both_sides_of_a_change_of_clocks():
    utc = pd.DatetimeIndex(["2024-03-08 14:35", "2024-03-11 13:35"])
    times = read(make_bars(2).set_axis(utc), tz="America/New_York").times
    assert times.tolist() == [np.datetime64(t, "ns").item() for t in ("2024-03-08T09:35", "2024-03-11T09:35")]


def test_every_second_and_the_last_moment_of_every_zones_day_come_back_from_a_float_of_days():
    day = datetime(2024, 5, 6)
    seconds = [day + timedelta(seconds=s) for s in range(86_400)]
    moments = [day + timedelta(minutes=15 * i, microseconds=-10) for i in range(1, 97)]
    found = utc_times(np.array([bt.date2num(time) for time in (*seconds, *moments)]))
    np.testing.assert_array_equal(found[:86_400], np.array(seconds, "datetime64[ns]"))
    exact = np.array(moments, "datetime64[ns]")
    assert (found[86_400:] < exact + np.timedelta64(10, "us")).all()
    assert (exact - found[86_400:] < np.timedelta64(200, "us")).all()


def test_an_hour_that_clocks_repeat_is_told_apart():
    utc = pd.date_range("2024-11-03 05:00", periods=4, freq="30min")  # 01:00 and 01:30 in New York, twice
    feed = loaded(make_bars(4).set_axis(utc), tz="America/New_York", timeframe=bt.TimeFrame.Minutes)
    times = LoadedFeed(feed, "A", 2).times
    assert len(np.unique(times)) == 4
    np.testing.assert_array_equal(times[2:] - times[:2], np.timedelta64(100_000, "ns"))


def test_a_day_has_one_bar_whatever_time_it_is_stamped_with():
    stamped = make_bars(10).index + pd.Timedelta("15:00:00")
    feed = loaded(make_bars(10).set_axis(stamped))
    np.testing.assert_array_equal(
        LoadedFeed(feed, "A", 5).times, stamped.normalize().to_numpy("datetime64[ns]")
    )


def test_bars_within_the_day_keep_their_time_though_the_feed_calls_them_daily():
    bars = make_bars(50, start="2024-01-02 09:35", freq="5min")
    np.testing.assert_array_equal(
        LoadedFeed(loaded(bars), "A", 5).times, bars.index.to_numpy("datetime64[ns]")
    )


def test_a_second_bar_of_a_day_among_daily_ones_is_refused():
    index = make_bars(20).index.insert(15, pd.Timestamp(make_bars(20).index[14]) + pd.Timedelta("1h"))
    with pytest.raises(ValueError, match=r"feed 'A' has the timestamp .* twice"):
        LoadedFeed(loaded(make_bars(21).set_axis(index)), "A", 5)
