from __future__ import annotations

import datetime

import pandas as pd
import pytest

from kronos.io.times import (
    AmbiguousSessionError,
    Sessions,
    Times,
    check_timezone,
    to_clock,
    to_sessions,
    to_times,
)

MOMENT = pd.Timestamp("2024-01-02 09:35")


def times(values: object, timezone: str | None = None) -> Times:
    return to_times(pd.Series(values, name="datetime"), timezone)


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-02 09:35",
        "2024-01-02T09:35:00",
        "2024/1/2 9:35",
        "2024.01.02 09:35:00.000",
        "20240102 093500",
        "2024年1月2日 09:35",
        "2024-01-02 09:35 AM",
        202401020935,
        20240102093500,
        20240102093500000,
        "202401020935",
    ],
)
def test_the_year_comes_first(text: object) -> None:
    got = times([text, None])
    assert got.wall.tolist() == [MOMENT, pd.NaT]
    assert got.wall.dtype == "datetime64[ns]"
    assert not got.absolute


@pytest.mark.parametrize(
    "day", ["2024-01-02", 20240102, 20240102.0, "20240102", "02-Jan-2024", "Jan 2, 2024", "2024年01月02日"]
)
def test_days_are_midnight(day: object) -> None:
    assert times([day]).wall.tolist() == [pd.Timestamp("2024-01-02")]
    assert times([datetime.date(2024, 1, 2)]).wall.tolist() == [pd.Timestamp("2024-01-02")]


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("kind", [int, str, float])
def test_epoch_units_are_detected_by_size_and_read_as_utc(unit: str, per_second: int, kind: type) -> None:
    seconds = int(MOMENT.timestamp())
    got = times([kind(seconds * per_second)] if kind is not str else [f"{seconds * per_second}"])
    assert got.wall.tolist() == [MOMENT]
    assert got.absolute
    assert got.notes == (f"timestamps as epoch {unit} in UTC (--timezone converts)",)


def test_epochs_of_two_units_in_one_file_are_read_each_by_its_own() -> None:
    seconds = int(MOMENT.timestamp())
    got = times([seconds * 10**3, seconds * 10**6])
    assert got.wall.tolist() == [MOMENT, MOMENT]


@pytest.mark.parametrize(
    "values", [["13/01/2024 09:30", "02/01/2024 09:30"], ["01/13/2024 09:30", "01/02/2024 09:30"]]
)
def test_a_day_after_the_twelfth_determines_the_order_of_day_and_month(values: list[str]) -> None:
    got = times(values)
    assert got.wall.tolist() == [pd.Timestamp("2024-01-13 09:30"), pd.Timestamp("2024-01-02 09:30")]
    assert got.notes[0].startswith("dates as ")


@pytest.mark.parametrize(
    "value", ["soon", "02.01.2024", "02/01/2024", "1066-10-14", 45292, "2024", 7, 1577923]
)
def test_values_that_are_not_dates_are_missing(value: object) -> None:
    assert times([value]).wall.isna().all()


def test_text_with_offsets_keeps_its_clock_across_a_change() -> None:
    got = times(["2024-03-08 00:00:00-05:00", "2024-03-11 00:00:00-04:00"])
    assert got.wall.tolist() == [pd.Timestamp("2024-03-08"), pd.Timestamp("2024-03-11")]
    assert got.notes == ("timestamps at UTC offset -04:00, -05:00 (--timezone converts)",)


@pytest.mark.parametrize("mark", ["Z", "+00:00", " +0000", "UTC", "+00", " GMT"])
def test_instants_are_converted_to_the_given_time_zone(mark: str) -> None:
    text = [f"2024-01-01 16:00:00{mark}"]
    assert times(text).wall.tolist() == [pd.Timestamp("2024-01-01 16:00")]
    assert times(text).notes == ("timestamps in UTC (--timezone converts)",)
    got = times(text, "Asia/Shanghai")
    assert got.wall.tolist() == [pd.Timestamp("2024-01-02")]
    assert got.notes == ("timestamps in UTC, converted to Asia/Shanghai",)


def test_columns_with_a_zone_are_moments_too() -> None:
    column = pd.Series(pd.DatetimeIndex([MOMENT]).tz_localize("Asia/Shanghai"))
    assert to_times(column, None).wall.tolist() == [MOMENT]
    assert to_times(column, "UTC").wall.tolist() == [MOMENT - pd.Timedelta(hours=8)]


@pytest.mark.parametrize(
    "clock", ["09:35", "09:35:00", "9:35", 935, "0935", 93500, datetime.time(9, 35), "093500"]
)
def test_times_of_day_are_read(clock: object) -> None:
    got = to_clock(
        pd.Series([clock, "10:00" if isinstance(clock, str) and ":" in clock else clock], dtype=object)
    )
    assert got is not None
    assert got[0] == pd.Timedelta(hours=9, minutes=35)


@pytest.mark.parametrize("values", [[20240102093500000], ["2024-01-02 09:35"], [1.5], ["25:00"], []])
def test_other_values_are_not_times_of_day(values: list[object]) -> None:
    assert to_clock(pd.Series(values, dtype=object)) is None


def test_a_zone_must_be_known() -> None:
    check_timezone("Asia/Shanghai")
    for name in ("Mars/Base", "", "../x"):
        with pytest.raises(ValueError, match=r"is not a time zone\. Pass that of the exchange"):
            check_timezone(name)


DAYS = pd.bdate_range("2024-02-20", periods=80)  # across the changes of clocks in March


def stored(zone: str, days: pd.DatetimeIndex = DAYS, hour: int = 0) -> pd.Series:
    """Days of a zone as UTC wall time."""
    return pd.Series((days + pd.Timedelta(hours=hour)).tz_localize(zone).tz_convert("UTC").tz_localize(None))


def sessions(wall: pd.Series, absolute: bool = True, timezone: str | None = None) -> Sessions:
    return to_sessions(wall, pd.Series("A", index=wall.index), absolute=absolute, timezone=timezone)


ZONES = [
    *("Asia/Shanghai", "Asia/Tokyo", "Asia/Kolkata", "Australia/Sydney", "Pacific/Auckland"),
    *("Europe/London", "Europe/Berlin", "America/New_York", "America/Los_Angeles"),
]


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("zone", ZONES)
def test_a_day_stored_as_a_moment_in_utc_does_not_move(zone: str, absolute: bool) -> None:
    got = sessions(stored(zone), absolute)
    assert got.wall.tolist() == list(DAYS)
    assert len(got.notes) == 1


@pytest.mark.parametrize(
    ("zone", "hour"), [("America/New_York", 16), ("Asia/Shanghai", 15), ("Europe/London", 8)]
)
def test_the_close_or_open_of_a_session_is_dated_with_its_day(zone: str, hour: int) -> None:
    assert sessions(stored(zone, hour=hour)).wall.tolist() == list(DAYS)


def test_times_without_offset_are_utc_where_that_makes_them_midnight_of_the_zone() -> None:
    around = pd.date_range("2024-01-01", periods=30)
    wall = stored("Asia/Shanghai", around)
    assert sessions(wall, absolute=False, timezone="Asia/Shanghai").wall.tolist() == list(around)
    assert sessions(wall, absolute=False, timezone="Asia/Tokyo").wall.equals(wall.dt.normalize())


def test_the_note_gives_an_example() -> None:
    assert sessions(stored("Asia/Shanghai")).notes == (
        "daily timestamps at 16:00 are midnight of another time zone, 2024-02-19 16:00 is assigned to 2024-02-20",
    )


def test_instants_whose_date_weekdays_do_not_determine_are_refused() -> None:
    around = pd.date_range("2024-01-01", periods=30)
    for days in (around, DAYS[:2]):
        with pytest.raises(
            AmbiguousSessionError, match=r"daily bars at 16:00: it is unclear .*--timezone Asia/Shanghai"
        ):
            sessions(stored("Asia/Shanghai", days))
    own = stored("Asia/Shanghai", around).dt.normalize()
    assert sessions(stored("Asia/Shanghai", around), absolute=False).wall.equals(own)
    assert sessions(stored("Asia/Shanghai", around), timezone="UTC").wall.equals(own)


def test_midnights_and_shorter_bars_are_left_alone() -> None:
    hours = pd.Series(pd.date_range("2024-01-01 16:00", periods=50, freq="h"))
    for wall in (pd.Series(DAYS), hours):
        got = sessions(wall)
        assert got.wall is wall
        assert got.notes == ()
