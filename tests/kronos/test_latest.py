from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from kronos.bars import bars_from_closes
from kronos.config import SampleConfig
from kronos.latest import LOOKBACK, as_windows, latest_windows
from kronos.panels import KEYS
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_model, make_panel, make_tokenizer

SAMPLING = SampleConfig(samples=3, T=1.0, seed=1)


def sessions(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """5-minute bars of A-shares, dated by their end, with a lunch break."""
    morning = pd.timedelta_range("9h35min", "11h30min", freq="5min")
    afternoon = pd.timedelta_range("13h5min", "15h", freq="5min")
    clock = morning.append(afternoon)
    return pd.DatetimeIndex(np.add.outer(days.to_numpy(), clock.to_numpy()).ravel())


def as_panel(panel: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(panel, names=["instrument", "datetime"]).swaplevel().sort_index()


@pytest.fixture(scope="module")
def predictor() -> KronosPredictor:
    return KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=16)


# Bars -> windows


def test_a_frame_a_dict_and_a_panel_of_the_same_bars_are_the_same_forecast(
    predictor: KronosPredictor,
) -> None:
    panel = make_panel(20, "A", "B")
    by_dict = predictor.forecast(panel, SAMPLING, horizon=3, lookback=8)
    by_panel = predictor.forecast(as_panel(panel), SAMPLING, horizon=3, lookback=8)
    by_frame = predictor.forecast(panel["B"], SAMPLING, horizon=3, lookback=8)
    windows = Windows.rolling(panel, 8, 3, "B", start=panel["A"].index[-1])
    by_windows = predictor.forecast(windows, SAMPLING)
    assert list(by_dict.index) == [(panel["A"].index[-1], name) for name in "AB"]
    np.testing.assert_array_equal(by_dict.paths, by_panel.paths)
    np.testing.assert_array_equal(by_dict.paths, by_windows.paths)
    np.testing.assert_array_equal(by_dict.timestamps, by_windows.timestamps)
    np.testing.assert_allclose(by_frame.paths[0], by_dict.paths[1], rtol=1e-4)


@pytest.mark.parametrize("order", [0, 1])
def test_columns_by_price_and_instrument_are_the_same_forecast(
    order: int, predictor: KronosPredictor
) -> None:
    panel = make_panel(20, "A", "B")
    panel["B"] = panel["B"].iloc[4:]  # listed later
    wide = pd.concat(panel, axis=1)
    wide = wide.swaplevel(axis=1) if order else wide
    by_wide = predictor.forecast(wide, SAMPLING, horizon=3, lookback=8)
    np.testing.assert_array_equal(
        by_wide.paths, predictor.forecast(panel, SAMPLING, horizon=3, lookback=8).paths
    )
    assert latest_windows(wide, 1).lengths.tolist() == [20, 16]


def test_closes_by_instrument_are_refused_with_the_way_to_make_bars_of_them() -> None:
    closes = pd.DataFrame({name: bars["close"] for name, bars in make_panel(20, "A", "B").items()})
    with pytest.raises(ValueError, match=r"has \['A', 'B'\].*kronos\.bars_from_closes\(closes\)"):
        latest_windows(closes, 2)
    windows = latest_windows({name: bars_from_closes(closes[name]) for name in closes}, 2)
    assert len(windows) == 2


def test_instruments_may_end_on_different_dates() -> None:
    panel = make_panel(20, "A", "B")
    panel["B"] = panel["B"].iloc[:-4]
    windows = latest_windows(panel, 2)
    assert dict(zip(windows.index.get_level_values(1), windows.index.get_level_values(0), strict=True)) == {
        name: bars.index[-1] for name, bars in panel.items()
    }


def test_without_a_lookback_the_last_90_bars_are_read_or_all_of_fewer() -> None:
    panel = {"A": make_bars(120), "B": make_bars(30)}
    lengths = latest_windows(panel, 1).lengths
    assert sorted(lengths) == [30, LOOKBACK]


def test_no_bar_before_the_lookback_changes_a_window() -> None:
    bars = make_bars(40)
    changed = bars.copy()
    changed.iloc[:30] *= 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor is a jump before it warned of
        after = latest_windows(changed, 2, 10)
    np.testing.assert_array_equal(latest_windows(bars, 2, 10).values, after.values)


def test_a_time_zone_is_read_as_local_time() -> None:
    bars = make_bars(30)
    local = latest_windows(bars.tz_localize("Asia/Shanghai"), 2)
    np.testing.assert_array_equal(local.future, latest_windows(bars, 2).future)


@pytest.mark.parametrize(
    ("given", "settings", "says"),
    [
        (make_bars(9), {}, r"needs horizon="),
        (make_bars(9), {"horizon": 0}, r"horizon=0"),
        (make_bars(9), {"horizon": 1, "lookback": 1}, r"lookback=1 is too short"),
        (make_bars(9), {"horizon": 1, "lookback": 12}, r"bars have 9 rows, fewer than lookback=12"),
        (make_bars(1), {"horizon": 1}, r"bars have 1 rows, fewer than lookback=2, the least"),
        ({}, {"horizon": 1}, r"no bars to forecast"),
        (make_bars(9).reset_index(), {"horizon": 1}, r"no DatetimeIndex.*set_index"),
        (
            make_bars(9).reset_index().assign(instrument="A"),
            {"horizon": 1},
            r"column of instruments.*set_index",
        ),
        (make_bars(9).set_index("close", append=True), {"horizon": 1}, r"indexed by"),
        (make_bars(9).tz_localize("UTC"), {"horizon": 1, "calendar": make_bars(3).index}, r"time zone UTC"),
    ],
)
def test_bars_that_cannot_be_forecast_are_refused(given: object, settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        as_windows(given, **settings)  # type: ignore[arg-type]


def test_windows_take_no_settings_of_bars() -> None:
    windows = latest_windows(make_bars(9), 1)
    assert as_windows(windows) is windows
    with pytest.raises(ValueError, match=r"lookback= does not apply"):
        as_windows(windows, lookback=3)


def test_other_types_than_bars_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"A list cannot be forecast"):
        as_windows([1], horizon=1)  # type: ignore[arg-type]


# Timestamps


def test_intraday_bars_skip_lunch_night_and_weekend() -> None:
    every = sessions(pd.bdate_range("2024-08-12", "2024-08-27"))
    at = every.get_loc(pd.Timestamp("2024-08-23 11:25"))  # a Friday
    bars = make_bars(at + 1).set_axis(every[: at + 1])
    np.testing.assert_array_equal(latest_windows(bars, 60).future[0], every[at + 1 : at + 61].to_numpy())


@pytest.mark.parametrize("zone", [None, "Asia/Shanghai"])
def test_a_calendar_of_trading_timestamps_or_of_an_exchange_is_followed(zone: str | None) -> None:
    days = pd.bdate_range("2024-09-02", "2024-09-30", tz=zone).drop(
        pd.DatetimeIndex(["2024-09-16", "2024-09-17"], tz=zone)
    )
    bars = make_bars(len(days)).set_axis(days)
    expected = np.array(["2024-10-08", "2024-10-09"], "datetime64[ns]")  # after National Day
    later = pd.DatetimeIndex(expected, tz=zone)
    np.testing.assert_array_equal(latest_windows(bars, 2, calendar=days.append(later)).future[0], expected)
    pytest.importorskip("exchange_calendars")
    np.testing.assert_array_equal(latest_windows(bars, 2, calendar="XSHG").future[0], expected)


def test_the_panel_may_have_its_levels_in_either_order() -> None:
    panel = as_panel(make_panel(9, "A", "B"))
    swapped = panel.swaplevel()
    assert list(swapped.index.names) == list(KEYS[::-1])
    assert latest_windows(swapped, 1).index.equals(latest_windows(panel, 1).index)
