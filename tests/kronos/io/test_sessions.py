from __future__ import annotations

import pandas as pd
import pytest

from kronos.io.sessions import Sessions, UnclearSessionError, to_sessions

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
def test_the_close_or_open_of_a_session_counts_for_its_day(zone: str, hour: int) -> None:
    assert sessions(stored(zone, hour=hour)).wall.tolist() == list(DAYS)


def test_times_without_offset_are_utc_where_that_makes_them_midnight_of_the_zone() -> None:
    around = pd.date_range("2024-01-01", periods=30)
    wall = stored("Asia/Shanghai", around)
    assert sessions(wall, absolute=False, timezone="Asia/Shanghai").wall.tolist() == list(around)
    assert sessions(wall, absolute=False, timezone="Asia/Tokyo").wall.equals(wall.dt.normalize())


def test_the_note_gives_an_example() -> None:
    assert sessions(stored("Asia/Shanghai")).notes == (
        "daily stamps at 16:00 are midnight of another time zone, 2024-02-19 16:00 counts for 2024-02-20",
    )


def test_moments_that_weekdays_do_not_place_are_refused() -> None:
    around = pd.date_range("2024-01-01", periods=30)
    for days in (around, DAYS[:2]):
        with pytest.raises(
            UnclearSessionError, match=r"daily bars at 16:00, .*unclear .*--timezone Asia/Shanghai"
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
