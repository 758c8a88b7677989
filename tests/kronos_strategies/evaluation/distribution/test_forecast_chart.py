from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos.forecast import Forecast
from kronos_strategies.evaluation.distribution.forecast_chart import forecast_chart
from tests.kronos.builders import make_bars, make_panel
from tests.kronos_strategies.forecast_view.conftest import make_forecast


@pytest.fixture(scope="module")
def panel() -> dict[str, pd.DataFrame]:
    return make_panel(60, "A", "B")


@pytest.fixture(scope="module")
def forecast(panel: dict[str, pd.DataFrame]) -> Forecast:
    return make_forecast(panel)


def test_bars_up_to_the_forecast_are_history_and_later_ones_truth(
    forecast: Forecast, panel: dict[str, pd.DataFrame]
) -> None:
    chart = forecast_chart(forecast, panel, "B", history=12, paths=4)
    pd.testing.assert_frame_equal(chart.history, panel["B"].iloc[38:50], check_names=False, check_freq=False)
    pd.testing.assert_frame_equal(chart.truth, panel["B"].iloc[50:55], check_names=False, check_freq=False)
    assert chart.labels[11] == f"{panel['B'].index[49]:%Y-%m-%d}"
    assert chart.labels[12:] == [f"{time:%Y-%m-%d}" for time in pd.DatetimeIndex(forecast.timestamps[1])]
    np.testing.assert_array_equal(chart.paths, forecast.path("close")[1, :4])


def test_the_median_candle_is_a_candle_and_bands_are_nested(
    forecast: Forecast, panel: dict[str, pd.DataFrame]
) -> None:
    chart = forecast_chart(forecast, panel, "A")
    median = chart.median
    assert (median["high"] >= median[["open", "close"]].max(axis=1)).all()
    assert (median["low"] <= median[["open", "close"]].min(axis=1)).all()
    np.testing.assert_allclose(median["close"], np.median(forecast.path("close")[0], axis=0))
    low, high, lowest, highest = chart.fan.T
    assert (lowest <= low).all()
    assert (low <= high).all()
    assert (high <= highest).all()


def test_without_bars_the_last_bar_is_the_history(forecast: Forecast) -> None:
    chart = forecast_chart(forecast, instrument="A")
    assert (len(chart.history), len(chart.truth)) == (1, 0)
    assert chart.last_close == float(forecast.last_bar[0, 3])


def test_one_frame_serves_one_instrument_and_a_time_zone_is_local(
    forecast: Forecast, panel: dict[str, pd.DataFrame]
) -> None:
    plain = forecast_chart(forecast[:1], panel["A"])
    assert plain.labels == forecast_chart(forecast[:1], panel["A"].tz_localize("Asia/Tokyo")).labels


def test_of_several_dates_the_last_is_drawn(forecast: Forecast) -> None:
    earlier = forecast.index.set_levels([pd.Timestamp("2020-01-01")], level="datetime")
    both = forecast[np.array([0, 0])]
    index = earlier[:1].append(forecast.index[:1])
    chart = forecast_chart(type(forecast)(**{**both.__dict__, "index": index}))
    assert chart.as_of == forecast.index[0][0]


def test_bars_without_volume_have_no_volume_panel(forecast: Forecast, panel: dict[str, pd.DataFrame]) -> None:
    assert forecast_chart(forecast, panel, "A").has_volume
    bare = panel["A"].drop(columns=["volume", "amount"])
    assert not forecast_chart(forecast, {"A": bare}, "A").has_volume


@pytest.mark.parametrize(
    ("instrument", "bars", "says"),
    [
        (None, None, r"has 2 instruments, A, B.*instrument="),
        ("C", None, r"no instrument 'C'. It has A, B"),
        ("A", {"B": make_bars(60)}, r"The bars have no instrument 'A'"),
        ("A", {"A": make_bars(40)}, r"no bar at 2024-03-11.*made from"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    forecast: Forecast, instrument: str | None, bars: dict[str, pd.DataFrame] | None, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        forecast_chart(forecast, bars, instrument)


def test_ticks_are_beginnings_and_middles_of_days_or_spread_evenly(
    forecast: Forecast, panel: dict[str, pd.DataFrame]
) -> None:
    daily = forecast_chart(forecast, panel, "A")
    assert 3 <= len(daily.ticks) <= 8
    assert daily.tick_text(daily.ticks[0]).endswith("\n2024")
    index = pd.date_range("2024-01-02 00:00", periods=72, freq="60min")
    hours = [f"{time:%Y-%m-%d %H:%M}" for time in index]
    within = type(daily)(**{**daily.__dict__, "labels": hours})
    shown = [within.tick_text(place) for place in within.ticks]
    assert shown == ["12:00", "03 Jan", "12:00", "04 Jan", "12:00"]
    many = pd.date_range("2024-01-02 00:00", periods=240, freq="60min")
    week = type(daily)(**{**daily.__dict__, "labels": [f"{time:%Y-%m-%d %H:%M}" for time in many]})
    assert [week.tick_text(place) for place in week.ticks] == [
        "03 Jan",
        "05 Jan",
        "07 Jan",
        "09 Jan",
        "11 Jan",
    ]
    part = type(daily)(**{**daily.__dict__, "labels": hours[2:20]})
    assert part.tick_text(part.ticks[0]).startswith("02 Jan\n0")
