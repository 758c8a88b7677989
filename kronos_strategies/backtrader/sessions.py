"""Sessions of a feed on its own clock, from Backtrader's trading calendars or those of exchanges."""

from __future__ import annotations

from datetime import datetime, timezone, tzinfo

import backtrader as bt
import pandas as pd

from kronos.future import FutureTimestamps
from kronos.sessions import ExchangeSessions, SessionCalendar, Span, exchange_sessions
from kronos.timetable import DAY

_PERIODS = {
    bt.TimeFrame.Weeks: pd.DateOffset(weeks=1),
    bt.TimeFrame.Months: pd.DateOffset(months=1),
    bt.TimeFrame.Years: pd.DateOffset(years=1),
}


class BacktraderSessions:
    """Sessions of a calendar that was added with `cerebro.addcalendar`.

    Args:
        calendar: the feed's `TradingCalendarBase`.
        zone: time zone of the feed's bars, for calendars with times in UTC.
    """

    def __init__(self, calendar: bt.TradingCalendarBase, zone: tzinfo | None) -> None:
        self.calendar, self.zone = calendar, zone

    def next_session(self, day: int) -> int:
        """The first day after `day` that trades."""
        following = self.calendar.nextday(_midnight(day))
        return int(pd.Timestamp(following).normalize().value // DAY)

    def spans(self, day: int) -> list[Span]:
        """Opening and closing of a day, nanoseconds on the clock of the feed."""
        if isinstance(self.calendar, bt.TradingCalendar):
            times = self.calendar.schedule(_midnight(day))  # in the time zone of its argument
        else:
            times = self.calendar.schedule(_midnight(day), self.zone)  # in UTC
            if self.zone is not None:
                times = [_convert(time, timezone.utc, self.zone) for time in times]
        # Rounded: a day ends at 23:59:59.999990.
        opening, closing = (pd.Timestamp(time).round("s").value for time in times)
        return [(opening, closing)]


class ExchangeFeedSessions:
    """Sessions of an exchange on the clock of a feed.

    Args:
        exchange: the sessions.
        zone: time zone of the feed's bars; None for that of the exchange.
    """

    def __init__(self, exchange: ExchangeSessions, zone: tzinfo | None) -> None:
        self.exchange, self.zone = exchange, zone

    def next_session(self, day: int) -> int:
        """The first day after `day` that has a session."""
        return self.exchange.next_session(day)

    def spans(self, day: int) -> list[Span]:
        """Opening and closing of each part of a session, nanoseconds on the clock of the feed."""
        spans = self.exchange.spans(day)
        if self.zone is None:
            return spans
        return [(self._to_feed(opening), self._to_feed(closing)) for opening, closing in spans]

    def _to_feed(self, stamp: int) -> int:
        assert self.zone is not None
        local = pd.Timestamp(stamp).to_pydatetime()
        return int(pd.Timestamp(_convert(local, self.exchange.zone, self.zone)).value)


def feed_predictor(
    timeframe: int,
    compression: int,
    step: int | None,
    calendar: bt.TradingCalendarBase | str | None,
    zone: tzinfo | None = None,
) -> FutureTimestamps:
    """Predictor of a feed's timestamps that has not seen any bar yet.

    Args:
        timeframe: time frame of the feed, a `bt.TimeFrame`.
        compression: compression of the feed.
        step: nanoseconds between two intraday bars; None where bars are daily or longer.
        calendar: trading calendar of the feed, or an exchange, see `kronos.future_timestamps`; None to learn
            the sessions.
        zone: time zone of the feed's bars.
    """
    if step is None and timeframe in _PERIODS:
        return FutureTimestamps(None, period=_PERIODS[timeframe] * compression)
    sessions: SessionCalendar | None = None
    if isinstance(calendar, str):
        sessions = ExchangeFeedSessions(exchange_sessions(calendar), zone)
    elif calendar is not None:
        sessions = BacktraderSessions(calendar, zone)
    return FutureTimestamps(step, days=compression, sessions=sessions)


def _convert(time: datetime, source: tzinfo, target: tzinfo) -> datetime:
    """Local time in one zone -> in another, both without the zone."""
    return time.replace(tzinfo=source).astimezone(target).replace(tzinfo=None)


def _midnight(day: int) -> datetime:
    return datetime.fromtimestamp(day * 86400, timezone.utc).replace(tzinfo=None)
