"""On whose clock bars are dated."""

import logging

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from kronos_strategies.backtrader.zones import zone_of
from tests.kronos.builders import make_bars
from tests.kronos_strategies.backtrader.builders import cerebro_of, kronos, pandas_feeds, record, run
from tests.kronos_strategies.backtrader.conftest import dates
from tests.kronos_strategies.backtrader.test_kinds import FIVE, session_bars

ZONES = ["Asia/Shanghai", "America/New_York", "Australia/Sydney", "UTC", "+08:00"]


@pytest.mark.parametrize("mode", [{}, {"runonce": False}])
@pytest.mark.parametrize("zone", ZONES)
def test_daily_bars_of_a_frame_with_a_zone_are_dated_with_its_days(asked, zone, mode):
    bars = make_bars(40)
    aware = record(cerebro_of(pandas_feeds({"A": bars.tz_localize(zone)})), **mode)
    assert dates(asked[0])[0] == bars.index[19]
    assert (asked[0].future[0] == bars.index[20:23].to_numpy("datetime64[ns]")).all()
    np.testing.assert_array_equal(aware.to_numpy(), run({"A": bars}, **mode).to_numpy())


@pytest.mark.parametrize("zone", ZONES)
def test_bars_within_the_day_of_a_frame_with_a_zone_have_its_hours(asked, zone):
    wall = session_bars(4, 12)
    record(cerebro_of(pandas_feeds({"A": wall.tz_localize(zone)}, **FIVE)))
    assert np.unique(asked[0].stamps[:, :, 1]).tolist() == [9, 10]


def test_a_zone_in_a_column_counts_too(asked):
    bars = make_bars(40).tz_localize("Asia/Shanghai").rename_axis("when").reset_index()
    record(cerebro_of({"A": bt.feeds.PandasData(dataname=bars, datetime="when")}))
    assert dates(asked[0])[0] == make_bars(40).index[19]


def test_tz_goes_before_the_zone_of_the_frame(asked):
    bars = session_bars(4, 12).tz_localize("America/New_York").tz_convert("UTC")
    record(cerebro_of(pandas_feeds({"A": bars}, tz="America/New_York", **FIVE)))
    assert np.unique(asked[0].stamps[:, :, 1]).tolist() == [9, 10]


def test_the_zone_that_times_are_read_in_counts_where_none_else_is_given(asked):
    record(cerebro_of(pandas_feeds({"A": session_bars(4, 12)}, tzinput="America/New_York", **FIVE)))
    assert np.unique(asked[0].stamps[:, :, 1]).tolist() == [9, 10]


def test_resampled_bars_within_the_day_keep_the_zone_of_the_frame(asked):
    cerebro = cerebro_of({})
    fine = bt.feeds.PandasData(dataname=session_bars(8, 12).tz_localize("America/New_York"), **FIVE)
    cerebro.adddata(fine, name="fine")
    cerebro.resampledata(fine, name="A", timeframe=bt.TimeFrame.Minutes, compression=10)
    record(cerebro, kronos())
    tens = [each for each in asked if "A" in each.index.get_level_values("instrument")]
    assert np.unique(np.concatenate([each.stamps[:, :, 1].ravel() for each in tens])).tolist() == [9, 10]


def test_days_that_backtrader_makes_without_tz_are_days_of_utc_and_said_to_be(asked, caplog):
    cerebro = cerebro_of({})
    fine = bt.feeds.PandasData(dataname=session_bars(40, 4).tz_localize("Asia/Shanghai"), **FIVE)
    cerebro.resampledata(fine, name="A", timeframe=bt.TimeFrame.Days)
    with caplog.at_level(logging.WARNING):
        record(cerebro)
    assert "its days begin at midnight of UTC" in caplog.text
    assert dates(asked[0])[0] == session_bars(40, 4).index[4 * 19].normalize()


def test_a_zone_that_backtrader_does_not_know_of_is_said_once(caplog):
    with caplog.at_level(logging.WARNING):
        record(cerebro_of(pandas_feeds({"A": make_bars(30).tz_localize("Asia/Shanghai")})))
    assert [r.getMessage() for r in caplog.records if "tz='Asia/Shanghai'" in r.getMessage()] == [
        "Feed 'A' has no tz=: forecasts date its bars on the clock of its data, Asia/Shanghai, but Backtrader "
        "itself shows and compares them in UTC. Pass tz='Asia/Shanghai' to the feed."
    ]
    caplog.clear()
    record(cerebro_of(pandas_feeds({"A": make_bars(30)})))
    assert not caplog.records


def test_times_that_would_be_converted_twice_are_refused():
    bars = make_bars(30).tz_localize("Asia/Shanghai")
    with pytest.raises(ValueError, match="feed 'A' has the time zone Asia/Shanghai, and tzinput"):
        record(cerebro_of(pandas_feeds({"A": bars}, tzinput="Asia/Shanghai")))


def test_a_feed_without_any_zone_has_none():
    feed = bt.feeds.PandasData(dataname=pd.DataFrame(make_bars(3)))
    cerebro_of({"A": feed})
    feed._start()
    assert zone_of(feed) is None
