"""A forecast as text: one line, and the table that a notebook shows."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kronos.bars import CLOSE
from kronos.zones import own_dates

if TYPE_CHECKING:
    from kronos.forecast import Forecast

MAX_ROWS = 10  # windows in the table
HEADS = ("instrument", "as of", "close", "forecast for", "5 %", "median", "95 %")


def describe(forecast: Forecast) -> str:
    """Sizes, dates and model in one line; for example `Forecast(2 windows, 10 paths of 5 bars, ...)`."""
    windows = f"{len(forecast):,} window{'s' * (len(forecast) != 1)}"
    paths = f"{forecast.samples:,} path{'s' * (forecast.samples != 1)}"
    bars = f"{forecast.horizon:,} bar{'s' * (forecast.horizon != 1)}"
    parts = [windows, f"{paths} of {bars}"]
    if len(forecast):
        dates = own_dates(forecast.index, forecast.timestamps)
        first, last = time_text(min(dates)), time_text(max(dates))
        parts.append(f"as of {first}" if first == last else f"as of {first} to {last}")
        names = [str(name) for name in forecast.index.get_level_values("instrument").unique()]
        parts.append(", ".join(names) if len(names) <= 3 else f"{len(names):,} instruments")
    applied = forecast.provenance.calibration
    parts += [f"model {forecast.provenance.model}", f"calibration {applied}" if applied else "not calibrated"]
    return f"Forecast({', '.join(parts)})"


def html_table(forecast: Forecast) -> str:
    """An HTML table of the closes at the last step of the first MAX_ROWS windows, under the line of `describe`."""
    shown = forecast[:MAX_ROWS]
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADS)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in _rows(shown))
    more = len(forecast) - len(shown)
    rest = f"<p>{more:,} more window{'s' * (more != 1)}</p>" if more else ""
    line = escape(describe(forecast))
    return f"<p>{line}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def _rows(forecast: Forecast) -> list[tuple[str, ...]]:
    if not len(forecast):
        return []
    last, ends = forecast.last_bar[:, CLOSE], forecast.path("close")[..., -1]
    median = np.median(ends, axis=1)
    if (last > 0).all():
        band = forecast.band(0.9)[:, -1]
    else:  # conformal factors apply to log prices
        band = np.quantile(ends, [0.05, 0.95], axis=1, method="weibull").T
    dates = own_dates(forecast.index, forecast.timestamps)
    names = forecast.index.get_level_values("instrument")
    return [
        (
            str(instrument),
            time_text(date),
            f"{last[i]:.6g}",
            time_text(pd.Timestamp(forecast.timestamps[i, -1])),
            *(f"{value:.6g}" for value in (band[i, 0], median[i], band[i, 1])),
        )
        for i, (date, instrument) in enumerate(zip(dates, names, strict=True))
    ]


def time_text(time: pd.Timestamp) -> str:
    """A date, with the time of day and the UTC offset of its time zone, if it has one, unless it is midnight."""
    if time == time.normalize():
        return f"{time:%Y-%m-%d}"
    return f"{time:%Y-%m-%d %H:%M}" if time.tz is None else time.isoformat(" ", "minutes")
