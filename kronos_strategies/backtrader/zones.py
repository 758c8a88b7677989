"""The time zone on whose clock a feed's bars are dated."""

from __future__ import annotations

import logging
from datetime import tzinfo

import backtrader as bt
import pandas as pd

log = logging.getLogger(__name__)


def zone_of(data: bt.AbstractDataBase) -> tzinfo | None:
    """That of `tz=`, else that of `tzinput=`, else that of the feed's frame; None leaves times as they are.

    Backtrader converts the stamps of a frame with a time zone to UTC and forgets the zone, unless it is told by
    `tz=`. Days that Backtrader makes itself without `tz=`, by resampling or replay, are days of UTC and dated so.
    """
    if data._tz is not None:
        return data._tz
    if (data.resampling or data.replaying) and data._timeframe >= bt.TimeFrame.Days:
        return None
    return _given(data)


def check_zone(data: bt.AbstractDataBase, name: str) -> None:
    """Say where the zone of a feed comes from if Backtrader does not know it.

    Raises:
        ValueError: the times are converted twice.
    """
    source = _source(data)
    frame = _zone_of_frame(source)
    if frame is not None and getattr(source, "_tzinput", None):
        raise ValueError(
            f"The frame of feed '{name}' has the time zone {frame}, and tzinput={source.p.tzinput!r} converts its "
            f"times once more. Leave tzinput out, and pass tz='{frame}'."
        )
    if data._tz is not None or _given(data) is None:
        return
    if zone_of(data) is None:
        log.warning(
            "Feed '%s' is made of bars in the time zone %s, which Backtrader does not know: its days begin at "
            "midnight of UTC. Pass tz='%s' to the feed that it is made of.",
            *(name, _given(data), _given(data)),
        )
    else:
        log.warning(
            "Feed '%s' has no tz=: forecasts date its bars on the clock of its data, %s, but Backtrader itself "
            "shows and compares them in UTC. Pass tz='%s' to the feed.",
            *(name, _given(data), _given(data)),
        )


def _given(data: bt.AbstractDataBase) -> tzinfo | None:
    """The zone of what a feed was made from, though it has no `tz=`."""
    source = _source(data)
    localizer = getattr(source, "_tzinput", None)
    return localizer if localizer is not None else _zone_of_frame(source)


def _source(data: bt.AbstractDataBase) -> bt.AbstractDataBase:
    while data._clone:
        data = data.data
    return data


def _zone_of_frame(data: bt.AbstractDataBase) -> tzinfo | None:
    frame = getattr(data.p, "dataname", None)
    if not isinstance(frame, pd.DataFrame):
        return None
    if isinstance(data, bt.feeds.PandasDirectData):
        times = frame.index if data.p.datetime == 0 else frame.iloc[:, data.p.datetime - 1]
    else:
        column = getattr(data, "_colmapping", {}).get("datetime", data.p.datetime)
        if column is None:
            times = frame.index
        else:
            times = frame.iloc[:, column] if isinstance(column, int) else frame[column]
    zone = getattr(times.dtype, "tz", None)
    if zone is None and times.dtype == object and len(times):
        zone = getattr(times[0] if isinstance(times, pd.Index) else times.iloc[0], "tzinfo", None)
    return zone
