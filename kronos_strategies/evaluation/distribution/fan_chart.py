"""Data of fan charts: closes before a few forecasts, sampled quantiles, and realized closes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.forecast import Forecast
from kronos_strategies.evaluation.panel import PricePanel

FAN_LEVELS = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
INSTRUMENTS, DATES = 6, 6  # to choose among in the report
HISTORY = 40  # bars shown before a forecast


class FanChartData:
    """Collects the forecasts of the most traded instruments on dates spread over the run.

    The instruments are chosen on the first date. The dates are chosen by doubling: whenever 2 * DATES of them have
    been collected, every other one is dropped and the spacing doubles, so that neither the number of dates nor
    anything later has to be known.

    Args:
        prices: bars that the forecasts were made from, and those that follow.
    """

    def __init__(self, prices: PricePanel) -> None:
        self._prices = prices
        self._instruments: pd.Index | None = None
        self._kept: list[_Quantiles] = []
        self._last: _Quantiles | None = None
        self._spacing, self._count = 1, 0

    def update(self, forecast: Forecast) -> None:
        """Add the forecasts of one date, later than those before."""
        instruments = forecast.index.get_level_values("instrument")
        if self._instruments is None:
            amounts = self._prices.amounts.loc[: forecast.index[0][0]].iloc[-20:].mean()
            ranked = amounts.reindex(instruments).sort_values(ascending=False, kind="stable")
            self._instruments = ranked.index[:INSTRUMENTS]
        quantiles = _Quantiles.of_rows(forecast, np.flatnonzero(instruments.isin(self._instruments)))
        if self._count % self._spacing == 0:
            self._kept.append(quantiles)
            if len(self._kept) == 2 * DATES:
                self._kept, self._spacing = self._kept[::2], 2 * self._spacing
        self._count, self._last = self._count + 1, quantiles

    def frame(self) -> pd.DataFrame:
        """Long: datetime (of the forecast), instrument, step, timestamp, close, q05, q25, q50, q75, q95.

        Step 0 is the last bar before the forecast, negative steps are earlier bars; quantiles are NaN there.
        `close` is the adjusted historical or realized close, NaN where there was no trade or the data end
        earlier. The last date is always included.
        """
        columns = ["datetime", "instrument", "step", "timestamp", "close", *FAN_LEVELS]
        found = [*self._kept, *([self._last] if self._last is not None else [])]
        charts = [chart for quantiles in found for chart in quantiles.charts(self._prices.closes)]
        if not charts:
            return pd.DataFrame(columns=columns)
        keys = ["datetime", "instrument", "step"]
        return pd.concat(charts)[columns].drop_duplicates(keys).sort_values(keys, ignore_index=True)


@dataclass(frozen=True)
class _Quantiles:
    """Quantiles of sampled closes of a few windows of one date: (levels, n, H), and their timestamps, (n, H)."""

    index: pd.MultiIndex
    quantiles: np.ndarray
    timestamps: np.ndarray

    @classmethod
    def of_rows(cls, forecast: Forecast, rows: np.ndarray) -> _Quantiles:
        """Only the quantiles that are drawn, so that the paths can be freed."""
        some = forecast[rows]
        outer, inner, middle = some.band(0.9), some.band(0.5), np.median(some.path("close"), axis=1)
        quantiles = np.stack([outer[..., 0], inner[..., 0], middle, inner[..., 1], outer[..., 1]])
        return cls(some.index, quantiles, some.timestamps)

    def charts(self, closes: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """One frame per window."""
        for i, (date, name) in enumerate(self.index):
            history = closes.loc[:date, name].dropna().iloc[-HISTORY:]
            ahead = pd.DatetimeIndex(self.timestamps[i])
            before = np.full((len(FAN_LEVELS), len(history)), np.nan)
            yield pd.DataFrame(
                {
                    "datetime": date,
                    "instrument": name,
                    "step": np.arange(1 - len(history), len(ahead) + 1),
                    "timestamp": history.index.append(ahead),
                    "close": np.concatenate([history, closes[name].reindex(ahead)]),
                    **dict(zip(FAN_LEVELS, np.hstack([before, self.quantiles[:, i]]), strict=True)),
                }
            )
