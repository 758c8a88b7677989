"""A few forecasts as one looks at them: bars seen, bands of what was sampled, and what came. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.forecast import Forecast
from kronos_strategies.evaluation.scorecard import Market

FAN_LEVELS = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
NAMES, DATES = 6, 6  # that one can choose among
SEEN = 40  # bars before a forecast


class Fans:
    """Collects the fans of the most traded names on dates spread over the run, as forecasts go by.

    Which names is decided by the first date, and which dates by doubling: whenever there are 2 * DATES of them,
    every other one is dropped and the distance doubles. So neither the number of dates nor anything later need be
    known.

    Args:
        market: of the bars that the forecasts were made of, and what came after.
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self._names: pd.Index | None = None
        self._kept: list[_Paths] = []
        self._last: _Paths | None = None
        self._distance, self._count = 1, 0

    def see(self, forecast: Forecast) -> None:
        """Look at the forecasts of one date, later than those before."""
        instruments = forecast.index.get_level_values("instrument")
        if self._names is None:
            amounts = self._market.amounts.loc[: forecast.index[0][0]].iloc[-20:].mean()
            ranked = amounts.reindex(instruments).sort_values(ascending=False, kind="stable")
            self._names = ranked.index[:NAMES]
        paths = _Paths.of(forecast, np.flatnonzero(instruments.isin(self._names)))
        if self._count % self._distance == 0:
            self._kept.append(paths)
            if len(self._kept) == 2 * DATES:
                self._kept, self._distance = self._kept[::2], 2 * self._distance
        self._count, self._last = self._count + 1, paths

    def frame(self) -> pd.DataFrame:
        """Long: datetime (of the forecast), instrument, step, timestamp, close, q05, q25, q50, q75, q95.

        Step 0 is the last bar seen, negative ones came before; bands are NaN there. `close` is what was or came,
        adjusted, NaN where there was no trade or the market ends before. The last date is always there.
        """
        columns = ["datetime", "instrument", "step", "timestamp", "close", *FAN_LEVELS]
        found = [*self._kept, *([self._last] if self._last is not None else [])]
        fans = [fan for paths in found for fan in paths.fans(self._market.closes)]
        if not fans:
            return pd.DataFrame(columns=columns)
        keys = ["datetime", "instrument", "step"]
        return pd.concat(fans)[columns].drop_duplicates(keys).sort_values(keys, ignore_index=True)


@dataclass(frozen=True)
class _Paths:
    """Bands of closes of a few windows of one date: (levels, n, H), and when they are, (n, H)."""

    keys: pd.MultiIndex
    bands: np.ndarray
    timestamps: np.ndarray

    @classmethod
    def of(cls, forecast: Forecast, rows: np.ndarray) -> _Paths:
        """The few figures that are drawn, so that the paths can be let go."""
        some = forecast[rows]
        outer, inner, middle = some.band(0.9), some.band(0.5), np.median(some.path("close"), axis=1)
        bands = np.stack([outer[..., 0], inner[..., 0], middle, inner[..., 1], outer[..., 1]])
        return cls(some.index, bands, some.timestamps)

    def fans(self, closes: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """One a window."""
        for i, (date, name) in enumerate(self.keys):
            seen, ahead = closes.loc[:date, name].dropna().iloc[-SEEN:], pd.DatetimeIndex(self.timestamps[i])
            before = np.full((len(FAN_LEVELS), len(seen)), np.nan)
            yield pd.DataFrame(
                {
                    "datetime": date,
                    "instrument": name,
                    "step": np.arange(1 - len(seen), len(ahead) + 1),
                    "timestamp": seen.index.append(ahead),
                    "close": np.concatenate([seen, closes[name].reindex(ahead)]),
                    **dict(zip(FAN_LEVELS, np.hstack([before, self.bands[:, i]]), strict=True)),
                }
            )
