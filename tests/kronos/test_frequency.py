from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos.frequency import FREQUENCIES, common_frequency, infer_frequency, typical_step
from kronos.training.clean import RULES


def sessions(step: str, *spans: tuple[str, str], days: int = 10) -> pd.DatetimeIndex:
    """Stamps of bars at their close, within spans of a weekday such as ("09:30", "11:30")."""
    stamps = [
        pd.date_range(f"{day:%Y-%m-%d} {start}", f"{day:%Y-%m-%d} {end}", freq=step)[1:]
        for day in pd.bdate_range("2024-02-26", periods=days)
        for start, end in spans
    ]
    return stamps[0].append(stamps[1:])


CHINA = (("09:30", "11:30"), ("13:00", "15:00"))


def test_the_names_are_those_of_the_cleaning_rules() -> None:
    assert list(FREQUENCIES) == list(RULES)


@pytest.mark.parametrize("name", FREQUENCIES)
def test_bars_around_the_clock_have_the_frequency_of_their_step(name: str) -> None:
    index = pd.date_range("2024-01-01", periods=50, freq=f"{FREQUENCIES[name]}min")
    assert infer_frequency(index) == name
    assert typical_step(index) == pd.Timedelta(minutes=FREQUENCIES[name])


@pytest.mark.parametrize("name", ["1min", "5min", "15min", "30min", "60min"])
def test_nights_weekends_and_a_lunch_break_do_not_change_the_frequency(name: str) -> None:
    assert infer_frequency(sessions(name, *CHINA)) == name


def test_two_bars_a_day_of_four_hours_are_no_daily_bars() -> None:
    days = pd.bdate_range("2024-01-01", periods=20)
    opens = (days + pd.Timedelta(hours=9, minutes=30)).append(days + pd.Timedelta(hours=13, minutes=30))
    assert infer_frequency(opens) == "4h"


@pytest.mark.parametrize("name", ["1min", "5min", "1day"])
def test_missing_bars_order_and_duplicates_do_not_change_the_frequency(name: str) -> None:
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=2000, freq=f"{FREQUENCIES[name]}min")
    sparse = rng.choice(index.to_numpy(), 900, replace=True)
    assert infer_frequency(pd.DatetimeIndex([*sparse, pd.NaT])) == name


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/London", "Asia/Shanghai"])
@pytest.mark.parametrize("freq", ["D", "B"])
def test_days_in_utc_are_days_though_clocks_change(zone: str, freq: str) -> None:
    local = pd.date_range("2024-02-01", "2024-12-01", freq=freq, tz=zone)
    assert infer_frequency(local) == "1day"
    assert infer_frequency(local.tz_convert("UTC").tz_localize(None)) == "1day"


def test_stamps_at_the_last_second_of_a_bar_are_as_good() -> None:
    index = pd.date_range("2024-01-01", periods=50, freq="5min") + pd.Timedelta(minutes=5, milliseconds=-1)
    assert infer_frequency(index) == "5min"


def test_weeks_with_a_holiday_are_weeks() -> None:
    index = pd.date_range("2024-01-05", periods=30, freq="W-FRI").to_series()
    index.iloc[[5, 12]] -= pd.Timedelta(days=1)
    assert infer_frequency(pd.DatetimeIndex(index)) == "1week"


@pytest.mark.parametrize("freq", ["1s", "3min", "10min", "2h", "12h", "3D", "14D", "MS"])
def test_other_steps_have_no_frequency(freq: str) -> None:
    assert infer_frequency(pd.date_range("2024-01-01", periods=30, freq=freq)) is None


def test_one_bar_has_no_step() -> None:
    assert infer_frequency(pd.DatetimeIndex(["2024-01-01"])) is None
    assert typical_step(pd.DatetimeIndex(["2024-01-01", "2024-01-01"])) is None
    assert infer_frequency(pd.DatetimeIndex(["2024-01-05", "2024-01-08"])) == "1day"


def test_instruments_agree_on_a_frequency_or_are_refused_by_name() -> None:
    daily, hourly = (pd.date_range("2024-01-01", periods=30, freq=freq) for freq in ("D", "h"))
    rare = daily[::7]
    assert common_frequency([("A", daily), ("B", rare), ("C", daily[:1])], "bars") == "1day"
    assert common_frequency([("C", daily[:1])], "bars") is None
    with pytest.raises(ValueError, match=r"bars mixes .*: A has 1day bars, B has 60min bars\. Keep one"):
        common_frequency([("A", daily), ("B", hourly)], "bars")
