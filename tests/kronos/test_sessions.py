"""Sessions of exchanges as they are scheduled, and the bars in them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos import future_timestamps
from kronos.sessions import exchange_sessions
from kronos.utils import MissingExtra
from tests.kronos.test_future import bars_of, text


@pytest.fixture(autouse=True)
def _exchanges() -> None:
    pytest.importorskip("exchange_calendars", reason="needs the extra 'calendars'")


def following(name: str, day: str) -> str:
    number = int(np.datetime64(day, "D").astype(np.int64))
    return str(np.datetime64(exchange_sessions(name).next_session(number), "D"))


@pytest.mark.parametrize(
    ("name", "before", "closed"),
    [
        ("XNYS", "2001-09-10", "2001-09-11"),
        ("XNYS", "2012-10-26", "2012-10-29"),
        ("XNYS", "2018-12-04", "2018-12-05"),
        ("NYSE", "2025-01-08", "2025-01-09"),
        ("XTSE", "2001-09-10", "2001-09-11"),
        ("XTKS", "2020-09-30", "2020-10-01"),
        ("XTAI", "2024-10-01", "2024-10-02"),
        ("XLON", "2022-09-16", "2022-09-19"),
        ("XSHG", "2020-01-23", "2020-01-31"),
    ],
)
def test_closures_at_short_notice_are_sessions(name, before, closed):
    assert following(name, before) == closed


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("XSHG", "2024-09-30", "2024-10-08"),
        ("XSHG", "2020-01-31", "2020-02-03"),
        ("XNYS", "2024-12-24", "2024-12-26"),
        ("XLON", "2011-04-28", "2011-05-03"),
        ("XHKG", "2024-02-09", "2024-02-14"),
        ("XTAI", "2024-02-05", "2024-02-15"),
        ("24/7", "2024-12-31", "2025-01-01"),
    ],
)
def test_holidays_are_known_in_advance(name, before, after):
    assert following(name, before) == after


def test_real_days_of_shanghai_are_its_sessions_but_for_a_closure_at_short_notice(shared_data: Path):
    index = pd.read_parquet(shared_data / "csi_index_2005_2023.parquet").reset_index()["datetime"]
    days = np.unique(index.to_numpy("datetime64[D]")).astype(np.int64)
    sessions = exchange_sessions("XSHG")
    expected = np.array([sessions.next_session(int(day)) for day in days[:-1]])
    wrong = np.flatnonzero(expected != days[1:])
    assert [str(day) for day in expected[wrong].astype("datetime64[D]")] == ["2020-01-31"]


def test_beyond_the_known_years_the_trading_week_continues_with_usual_hours(caplog):
    exchange_sessions.cache_clear()
    for name in ("XSHG", "XNYS"):
        sessions = exchange_sessions(name)
        friday = int(np.datetime64("2100-01-01", "D").astype(np.int64))
        monday = sessions.next_session(friday)
        assert monday == friday + 3
        length = sum(closing - opening for opening, closing in sessions.spans(monday))
        assert pd.Timedelta(length) == pd.Timedelta(hours=4 if name == "XSHG" else 6.5)
        assert f"holidays of {name} are known until 20" in caplog.messages[-1]
    assert len(caplog.messages) == 2


def test_days_before_the_known_years_are_refused():
    days = pd.bdate_range("1970-01-01", periods=20)
    with pytest.raises(
        ValueError, match=r"sessions of XSHG are known from 199\d.*bars are of 1970.*calendar=None"
    ):
        future_timestamps(days, 2, "XSHG")


def test_an_unknown_exchange_is_refused_with_the_names_that_are_near():
    with pytest.raises(ValueError, match=r"calendar='xshg' is not an exchange .* such as XSHG"):
        exchange_sessions("xshg")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    exchange_sessions.cache_clear()
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    with pytest.raises(MissingExtra, match=r"kronos-strategies\[calendars\]"):
        exchange_sessions("XSHG")


# Bars that do not cover the calendar's hours, or lie outside them


def test_extended_hours_keep_their_distance_on_a_half_day():
    bars = bars_of(pd.bdate_range("2024-11-18", "2024-11-27"), ("04:05", "20:00"))
    found = future_timestamps(bars, 157, "XNYS")
    assert text(found[[0, 155, 156]]) == ["2024-11-29 04:05:00", "2024-11-29 17:00:00", "2024-12-02 04:05:00"]


def test_a_bar_of_the_opening_auction_stays():
    spans = (("09:30", "11:30"), ("13:01", "15:00"))
    days = pd.bdate_range("2024-09-23", "2024-09-30")
    bars = bars_of(days, *spans, freq="1min")
    expected = bars_of(pd.bdate_range("2024-10-08", "2024-10-09"), *spans, freq="1min")
    np.testing.assert_array_equal(future_timestamps(bars, 482, "XSHG").to_numpy(), expected.to_numpy())


def test_a_daily_break_that_the_calendar_lacks_is_learned():
    """Bars of Chicago's electronic market pause from 16:00 to 17:00; the calendar has sessions of 24 hours."""
    days = pd.bdate_range("2024-06-03", "2024-06-14")
    late = bars_of(days, ("17:05", "23:55"))
    early = bars_of(days, ("00:00", "16:00"))
    bars = late.append(early).sort_values()
    bars = bars[bars <= "2024-06-13 15:55"]
    assert text(future_timestamps(bars, 2, "CMES")) == ["2024-06-13 16:00:00", "2024-06-13 17:05:00"]


def test_a_later_closing_counts_from_its_first_session():
    bars = bars_of(pd.bdate_range("2024-10-21", "2024-11-01"), ("09:05", "11:30"), ("12:35", "15:00"))
    found = future_timestamps(bars, 66, "XTKS")
    assert text(found[[59, 65]]) == ["2024-11-05 15:00:00", "2024-11-05 15:30:00"]  # Monday is a holiday


def test_missing_bars_are_expected_again_but_pauses_are_not():
    days = pd.bdate_range("2024-03-04", "2024-03-15")
    bars = bars_of(days, ("09:35", "16:00"))
    rng = np.random.default_rng(0)
    kept = bars[rng.random(len(bars)) < 0.9]
    expected = bars_of(pd.bdate_range("2024-03-18", periods=1), ("09:35", "16:00"))
    np.testing.assert_array_equal(future_timestamps(kept, 78, "XNYS").to_numpy(), expected.to_numpy())
