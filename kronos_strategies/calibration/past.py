"""Past forecasts as sampled, their outcomes, and when that was known. Knows no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kronos.forecast import Forecast, Provenance
from kronos_strategies.evaluation.price_panel import PricePanel

MAX_WINDOWS = 40_000  # more of them say little more, and paths take memory


@dataclass(frozen=True)
class PastForecasts:
    """N windows of any dates, in order of dates.

    Attributes:
        returns: (N, S, H) float32 log returns of sampled closes since the last one.
        came: (N, H) float64 log returns that came; NaN where a name did not trade on either end.
        known: (N, H) datetime64[ns], at whose close each was known; NaT of those that the market does not reach.
        trailing: (N,) float64 volatility per bar, NaN where unknown.
        keys: (N,) (datetime, instrument).
        bars_between: fewest bars between successive forecast dates.
        spacing: seconds between bars; None of paths of one step.
        provenance: of the first forecast.
    """

    returns: np.ndarray
    came: np.ndarray
    known: np.ndarray
    trailing: np.ndarray
    keys: pd.MultiIndex
    bars_between: int
    spacing: float | None
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: np.ndarray) -> PastForecasts:
        """Some of the windows, by mask or integer array."""
        names = ("returns", "came", "known", "trailing", "keys")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    @property
    def dates(self) -> pd.DatetimeIndex:
        """(N,) of the forecasts."""
        return pd.DatetimeIndex(self.keys.get_level_values("datetime"))

    @property
    def horizon(self) -> int:
        """H, bars."""
        return self.returns.shape[2]

    @property
    def samples(self) -> int:
        """S, paths."""
        return self.returns.shape[1]

    def at(self, date: pd.Timestamp) -> PastForecasts:
        """As it was known at the close of `date`: later outcomes are NaN, windows without any are left out."""
        known = self.known <= np.datetime64(date, "ns")  # NaT is not
        rows = np.asarray(known.any(axis=1))
        return replace(self[rows], came=np.where(known, self.came, np.nan)[rows])

    def between(self, start: pd.Timestamp | None, end: pd.Timestamp | None) -> PastForecasts:
        """Those dated from `start` to `end`."""
        dates = self.dates
        rows = np.ones(len(self), bool)
        rows &= np.asarray(dates >= start) if start is not None else rows
        rows &= np.asarray(dates <= end) if end is not None else rows
        return self[rows]

    def spans(self, step: int) -> int:
        """Successive forecast dates that an outcome `step` bars ahead spans."""
        return max(1, -(-step // self.bars_between))


def collect(
    forecasts: Iterable[Forecast], market: PricePanel, limit: int = MAX_WINDOWS, dates: int | None = None
) -> PastForecasts:
    """What is needed of forecasts to calibrate by.

    Args:
        forecasts: of one date each, ascending, as sampled.
        market: of the bars that they were made of, and what came after.
        limit: windows to keep; of more, every k-th of each date is left.
        dates: how many there are, where it is known: then what is left out is never held.

    Raises:
        ValueError: no forecast, calibrated ones, or forecasts of another market.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, pd.MultiIndex]] = []
    first: Forecast | None = None
    moved: list[pd.DataFrame] = []
    for place, forecast in enumerate(forecasts):
        if forecast.provenance.calibration is not None:
            raise ValueError("The forecasts are calibrated already. Fit a calibration to those as sampled.")
        if first is None:
            first = forecast
            moved = [market.log_return(step) for step in range(1, forecast.horizon + 1)]
        if dates:
            every = max(1, -(-len(forecast) * dates // limit))
            forecast = forecast[np.arange(place % every, len(forecast), every)]
        parts.append(_outcomes(forecast, market, moved))
    if first is None:
        raise ValueError("There are no forecasts to calibrate by. Fill a store with `kronos forecast`.")
    returns, came, known, trailing = (np.concatenate([part[i] for part in parts]) for i in range(4))
    keys = parts[0][4].append([part[4] for part in parts[1:]])
    steps = np.diff(market.calendar.get_indexer(pd.DatetimeIndex(keys.get_level_values("datetime")).unique()))
    between = int(steps.min()) if len(steps) else first.horizon
    return PastForecasts(returns, came, known, trailing, keys, between, first.spacing, first.provenance)


def _outcomes(
    forecast: Forecast, market: PricePanel, moved: list[pd.DataFrame]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, pd.MultiIndex]:
    n, horizon = forecast.timestamps.shape
    came = (
        np.column_stack([market.lookup(wide, forecast.index) for wide in moved])
        if n
        else np.empty((0, horizon))
    )
    at = market.calendar.get_indexer(pd.DatetimeIndex(forecast.index.get_level_values("datetime")))
    ends = at[:, None] + np.arange(1, horizon + 1)
    times = market.calendar.to_numpy("datetime64[ns]")
    known = np.where(ends < len(times), times[np.minimum(ends, len(times) - 1)], np.datetime64("NaT", "ns"))
    trailing = np.full(n, np.nan) if forecast.trailing_volatility is None else forecast.trailing_volatility
    return forecast.log_returns().astype(np.float32), came, known, trailing.astype(float), forecast.index
