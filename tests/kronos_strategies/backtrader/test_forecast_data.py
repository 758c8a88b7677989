"""ForecastData: stored forecasts as lines, and no model."""

import subprocess
import sys

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from kronos_strategies.backtrader import ForecastData, join_forecasts, read_forecasts
from kronos_strategies.backtrader.lines import ALL_LINES, LINES
from kronos_strategies.store import ForecastStore
from tests.kronos.builders import make_bars
from tests.kronos_strategies.backtrader.builders import (
    awkward_panel,
    cerebro_of,
    kronos,
    pandas_feeds,
    record,
    run,
)


class Own:
    """The forecast lines of a feed, in the form of an indicator."""

    def __init__(self, data: bt.AbstractDataBase) -> None:
        self.lines = [getattr(data.lines, name) for name in ALL_LINES]

    def getlinealiases(self) -> tuple[str, ...]:
        return ALL_LINES


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ForecastStore:
    folder = tmp_path_factory.mktemp("forecasts")
    run(awkward_panel(), kronos(store=str(folder), level=0.5))
    return ForecastStore(folder)


@pytest.mark.parametrize("mode", [{}, {"runonce": False}])
def test_a_forecast_feed_has_the_lines_of_the_indicator(store, asked, mode):
    (stored,) = store.forecast_sets()
    forecasts = read_forecasts(stored, level=0.5)
    panel = {name: bars for name, bars in awkward_panel().items() if name != "SHORT"}
    feeds = {
        name: ForecastData(dataname=join_forecasts(bars, forecasts, name)) for name, bars in panel.items()
    }
    table = record(cerebro_of(feeds), Own, **mode)
    assert not asked
    expected = run(awkward_panel(), kronos(level=0.5)).drop("SHORT", level="instrument")
    pd.testing.assert_frame_equal(table, expected, check_exact=True)


def test_no_model_and_no_torch_is_loaded(store, tmp_path):
    awkward_panel()["WHOLE"].to_parquet(tmp_path / "bars.parquet")
    script = f"""
import sys, pandas as pd, backtrader as bt
from kronos_strategies.backtrader import ForecastData, join_forecasts, read_forecasts
from kronos_strategies.store import ForecastStore
forecasts = read_forecasts(ForecastStore({str(store.folder)!r}).forecast_sets()[0])
bars = pd.read_parquet({str(tmp_path / "bars.parquet")!r})
cerebro = bt.Cerebro()
cerebro.adddata(ForecastData(dataname=join_forecasts(bars, forecasts, "WHOLE"), name="WHOLE"))
cerebro.addstrategy(bt.Strategy)
strategy = cerebro.run()[0]
print(strategy.data.volatility[0] > 0, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_bars_with_a_time_zone_are_matched_by_local_time():
    index = pd.MultiIndex.from_arrays(
        [[pd.Timestamp("2024-03-04 09:35")], ["A"]], names=["datetime", "instrument"]
    )
    forecasts = pd.DataFrame([range(len(LINES))], index=index, columns=list(LINES))
    bars = make_bars(2).set_axis(pd.date_range("2024-03-04 14:35", periods=2, freq="5min", tz="UTC"))
    joined = join_forecasts(bars.tz_convert("America/New_York"), forecasts, "A")
    assert joined["upper"].tolist() == [5, 5]
    assert joined["age"].tolist() == [0, 1]


def test_bars_before_the_first_forecast_have_none():
    bars = make_bars(5)
    index = pd.MultiIndex.from_arrays([[bars.index[2]], ["A"]], names=["datetime", "instrument"])
    joined = join_forecasts(bars, pd.DataFrame([range(len(LINES))], index=index, columns=list(LINES)), "A")
    np.testing.assert_array_equal(joined["age"], [np.nan, np.nan, 0, 1, 2])


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (lambda bars: bars, "B", "There are no forecasts of 'B'"),
        (lambda bars: bars.set_axis(bars.index + pd.Timedelta("15h")), "A", "normalize"),
        (lambda bars: bars.iloc[::-1], "A", "not sorted"),
        (lambda bars: bars.reset_index(drop=True), "A", "DatetimeIndex"),
    ],
)
def test_bars_without_any_forecast_are_refused(change, name, message):
    bars = make_bars(5)
    index = pd.MultiIndex.from_arrays([[bars.index[2]], ["A"]], names=["datetime", "instrument"])
    forecasts = pd.DataFrame([range(len(LINES))], index=index, columns=list(LINES))
    with pytest.raises(ValueError, match=message):
        join_forecasts(change(bars), forecasts, name)


def test_stored_forecasts_of_the_same_feed_agree_in_every_mode(store, tmp_path):
    record(cerebro_of(pandas_feeds(awkward_panel())), kronos(store=str(tmp_path), level=0.5), runonce=False)
    (one,), (other,) = store.forecast_sets(), ForecastStore(tmp_path).forecast_sets()
    pd.testing.assert_frame_equal(read_forecasts(one), read_forecasts(other), check_exact=True)
