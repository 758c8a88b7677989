"""Forecasts are dated in the time zones of their bars; the model reads the local clock."""

from __future__ import annotations

import pickle
from datetime import timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.future import future_timestamps
from kronos.paths import PriceLimits
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos.zones import add_zones, remove_zones
from tests.kronos.builders import make_bars, make_model, make_tokenizer

SAMPLING = SampleConfig(samples=3, T=1.0, seed=1)
SHANGHAI, NEW_YORK = "Asia/Shanghai", "America/New_York"


def hourly(zone: str | None, count: int = 30, start: str = "2024-03-04 09:00") -> pd.DataFrame:
    return make_bars(count).set_axis(pd.date_range(start, periods=count, freq="h", tz=zone, name="datetime"))


@pytest.fixture(scope="module")
def predictor() -> KronosPredictor:
    return KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=16)


@pytest.fixture(scope="module")
def several(predictor: KronosPredictor) -> Forecast:
    """Bars that end at one instant in two of three zones."""
    panel = {
        "CN": hourly(SHANGHAI, start="2024-03-04 20:00"),
        "UK": hourly("Europe/London", start="2024-03-04 12:00"),
        "US": hourly(NEW_YORK, start="2024-03-04 09:00"),
    }
    return predictor.forecast(panel, SAMPLING, horizon=3)


@pytest.mark.parametrize(
    "zone", [SHANGHAI, NEW_YORK, "UTC", timezone(timedelta(hours=5, minutes=30)), "dateutil/Asia/Tokyo"]
)
def test_times_come_back_in_the_zone_of_the_bars(zone: object, predictor: KronosPredictor) -> None:
    bars = hourly(None).tz_localize(zone)  # type: ignore[arg-type]
    made = predictor.forecast(bars, SAMPLING, horizon=3)
    expected = future_timestamps(bars, 3)
    assert list(made.timestamps[0]) == list(expected)
    assert {str(time.tz) for time in made.timestamps[0]} == {str(bars.index.tz)}
    assert made.index[0][0] == bars.index[-1]
    frame = made.frame()
    assert frame["timestamp"].dt.tz == bars.index.tz
    assert list(frame["timestamp"]) == list(expected)
    assert frame.index.get_level_values("datetime").tz == bars.index.tz


def test_bars_without_a_zone_have_times_without_one(predictor: KronosPredictor) -> None:
    made = predictor.forecast(hourly(None), SAMPLING, horizon=3)
    assert made.timestamps.dtype == "datetime64[ns]"
    assert made.without_zones().index is made.index
    assert made.frame()["timestamp"].dt.tz is None


def test_the_zone_changes_no_path(predictor: KronosPredictor) -> None:
    plain, zoned = (predictor.forecast(hourly(zone), SAMPLING, horizon=3) for zone in (None, NEW_YORK))
    np.testing.assert_array_equal(zoned.paths, plain.paths)
    assert zoned.provenance == plain.provenance
    assert zoned.spacing == plain.spacing == 3600


def test_a_panel_and_rolling_windows_have_the_zone_too(predictor: KronosPredictor) -> None:
    panel = pd.concat({"A": hourly(NEW_YORK)}, names=["instrument", "datetime"]).swaplevel()
    windows = Windows.rolling(panel, 8, 3, "h", start="2024-03-05 10:00")
    for made in (predictor.forecast(panel, SAMPLING, horizon=3), predictor.forecast(windows, SAMPLING)):
        assert str(made.index.get_level_values("datetime").tz) == NEW_YORK
        assert str(made.frame()["timestamp"].dt.tz) == NEW_YORK


def test_instruments_of_several_zones_keep_theirs(several: Forecast) -> None:
    zones = [str(row[0].tz) for row in several.timestamps]
    names = list(several.index.get_level_values("instrument"))
    assert dict(zip(names, zones, strict=True)) == {"CN": SHANGHAI, "UK": "Europe/London", "US": NEW_YORK}
    dates = several.index.get_level_values("datetime")
    assert str(dates.tz) == "UTC"
    assert dates[names.index("CN")] == dates[names.index("UK")] == pd.Timestamp("2024-03-05 17:00", tz="UTC")
    frame = several.frame()
    assert frame.xs("CN", level="instrument")["timestamp"].iloc[0] == pd.Timestamp(
        "2024-03-06 02:00", tz=SHANGHAI
    )
    assert str(frame.xs("US", level="instrument")["timestamp"].iloc[0].tz) == NEW_YORK


def test_without_zones_they_are_dated_by_the_clock_of_each(several: Forecast) -> None:
    local = several.without_zones()
    found = dict(zip(local.index.get_level_values(1), local.index.get_level_values(0), strict=True))
    assert found == {
        "CN": pd.Timestamp("2024-03-06 01:00"),
        "UK": pd.Timestamp("2024-03-05 17:00"),
        "US": pd.Timestamp("2024-03-05 14:00"),
    }
    assert local.timestamps.dtype == "datetime64[ns]"
    assert several.spacing == local.spacing == 3600


def test_a_part_and_a_changed_forecast_keep_the_zones(several: Forecast) -> None:
    one = several[np.array([1])]
    assert len(one) == 1
    for made in (one, one.repaired(), one.limited(PriceLimits(0.1)), pickle.loads(pickle.dumps(one))):
        assert made.timestamps[0, 0].tz is not None
        assert made.index.equals(one.index)


def test_text_shows_the_zone_of_each_instrument(several: Forecast, predictor: KronosPredictor) -> None:
    assert "as of 2024-03-05 17:00+00:00 to 2024-03-05 14:00-05:00, US, UK, CN," in repr(several)
    page = several._repr_html_()
    assert "<td>2024-03-06 01:00+08:00</td>" in page
    assert "<td>2024-03-05 17:00-05:00</td>" in page  # three bars later
    days = make_bars(12).tz_localize(SHANGHAI)
    assert "as of 2024-01-17," in repr(predictor.forecast(days, SAMPLING, horizon=2))


def test_bars_with_and_without_a_zone_are_refused_together(predictor: KronosPredictor) -> None:
    panel = {"A": hourly("UTC"), "B": hourly(None)}
    says = r"bars of A are in the time zone UTC, those of B in none\. Give all of them one"
    with pytest.raises(ValueError, match=says):
        predictor.forecast(panel, SAMPLING, horizon=3)
    with pytest.raises(ValueError, match=says):
        Windows.rolling(panel, 8, 3, "h")


def test_an_hour_that_occurs_twice_is_told_apart(predictor: KronosPredictor) -> None:
    bars = hourly(NEW_YORK, 26, start="2024-11-01 22:00")
    made = predictor.forecast(bars, SAMPLING, horizon=6)
    expected = pd.date_range(bars.index[-1], periods=7, freq="h")[1:]
    assert [str(time) for time in made.timestamps[0][1:4]] == [
        "2024-11-03 01:00:00-04:00",
        "2024-11-03 01:00:00-05:00",
        "2024-11-03 02:00:00-05:00",
    ]
    assert list(made.timestamps[0]) == list(expected)


def test_a_skipped_hour_becomes_the_next_one() -> None:
    index = pd.MultiIndex.from_tuples(
        [(pd.Timestamp("2024-03-10 01:30"), "A")], names=["datetime", "instrument"]
    )
    local = np.array([["2024-03-10T02:00", "2024-03-10T03:30"]], "datetime64[ns]")
    zone = pd.Timestamp(0, tz=NEW_YORK).tz
    _, times = add_zones(index, local, {"A": zone})  # type: ignore[dict-item]
    assert [str(time) for time in times[0]] == ["2024-03-10 03:00:00-04:00", "2024-03-10 03:30:00-04:00"]


def test_adding_and_removing_zones_is_the_identity(several: Forecast) -> None:
    local = several.without_zones()
    names = several.index.get_level_values("instrument")
    zones = {name: row[0].tz for name, row in zip(names, several.timestamps, strict=True)}
    index, timestamps = add_zones(local.index, local.timestamps, zones)
    assert index.equals(several.index)
    assert (timestamps == several.timestamps).all()
    again = remove_zones(index, timestamps)
    assert again[0].equals(local.index)
    np.testing.assert_array_equal(again[1], local.timestamps)
