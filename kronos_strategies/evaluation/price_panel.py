"""Prices of a market by date and instrument: the returns that follow each date, and what was known on it.

Time is the market's: t + h is h trading days later in the union calendar, as in the future timestamps of a
forecast, whether or not an instrument traded in between. A label is NaN unless the instrument traded on both of
its ends, as Qlib's labels are: without a trade there was no price to buy or sell at. Quantities that are known on
a date, such as historical volatility, use the last known close, as `kronos_strategies.qlib` does.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos_strategies.evaluation.distribution.volatility import (
    forward_sum,
    garman_klass,
    historical_volatility,
    overnight,
    realized_variance,
)
from kronos_strategies.evaluation.significance import label_overlap

EWMA_DECAY = 0.94  # of RiskMetrics, for daily returns
CLOSE_TO_CLOSE, RANGE_BASED = "close-to-close", "range-based"  # measures of realized variance


@dataclass(frozen=True)
class PricePanel:
    """Adjusted bars of a market, wide: dates x instruments, NaN on a day without a trade.

    Attributes:
        opens: adjusted opens.
        closes: adjusted closes.
        amounts: traded amounts in quote currency.
        range_variance: variance of each bar: Garman & Klass plus the squared overnight gap.
    """

    opens: pd.DataFrame
    closes: pd.DataFrame
    amounts: pd.DataFrame
    range_variance: pd.DataFrame

    @classmethod
    def from_bars(cls, bars: pd.DataFrame) -> PricePanel:
        """From adjusted bars indexed (datetime, instrument), without rows on suspended days.

        A missing amount is volume times the mean of the bar's prices, as in the windows.
        """
        if "amount" not in bars:
            bars = bars.assign(amount=bars["volume"] * bars[list(PRICES)].mean(axis=1))
        wide = (bars[name].unstack("instrument").sort_index() for name in (*PRICES, "amount"))
        open_, high, low, close, amount = wide
        return cls(open_, close, amount, garman_klass(open_, high, low, close) + overnight(open_, close))

    @classmethod
    def read(cls, file: Path) -> PricePanel:
        """Read what `write` saved."""
        long = pd.read_parquet(file)
        return cls(**{f.name: long[f.name].unstack("instrument").sort_index() for f in fields(cls)})

    def write(self, file: Path) -> None:
        """Save as one parquet file with one row per (datetime, instrument)."""
        long = {f.name: getattr(self, f.name).stack(future_stack=True) for f in fields(self)}
        pd.DataFrame(long).dropna(how="all").to_parquet(file, compression="zstd")

    @property
    def calendar(self) -> pd.DatetimeIndex:
        """Days on which any instrument traded."""
        return pd.DatetimeIndex(self.closes.index)

    def forward_return(self, horizon: int, price: str = "close") -> pd.DataFrame:
        """Simple return price(t+1) -> price(t+1+h) at "close" or "open": a signal dated t trades one bar later."""
        traded = {"close": self.closes, "open": self.opens}[price]
        return traded.shift(-1 - horizon) / traded.shift(-1) - 1

    def log_return(self, horizon: int) -> pd.DataFrame:
        """Log return close(t) -> close(t+h), which sampled paths that start at close(t) predict."""
        return (self.closes.shift(-horizon) / self.closes).apply(np.log)

    def variance(self, horizon: int) -> dict[str, pd.DataFrame]:
        """Realized variance of bars t+1..t+h, CLOSE_TO_CLOSE (squared log returns) and RANGE_BASED.

        The range-based measure is several times less noisy, which matters for small h. A day without a trade adds
        nothing.
        """
        by_closes = realized_variance(self.closes, horizon)
        by_ranges = forward_sum(self.range_variance.fillna(0.0), horizon).where(by_closes.notna())
        return {CLOSE_TO_CLOSE: by_closes, RANGE_BASED: by_ranges}

    @cached_property
    def last_close(self) -> pd.DataFrame:
        """Last known close."""
        return self.closes.ffill()

    @cached_property
    def historical_volatility(self) -> pd.DataFrame:
        """Standard deviation of the last 20 returns, known at the close."""
        return historical_volatility(self.last_close)

    @cached_property
    def ewma(self) -> pd.DataFrame:
        """Square root of the exponentially weighted mean of squared log returns, known at each close."""
        squares = self.last_close.apply(np.log).diff() ** 2
        return squares.ewm(alpha=1 - EWMA_DECAY, min_periods=20).mean() ** 0.5

    def lookup(self, wide: pd.DataFrame, index: pd.MultiIndex) -> pd.Series:
        """The entries of a frame of this panel at (datetime, instrument) pairs.

        Raises:
            ValueError: a pair is outside the panel.
        """
        rows = wide.index.get_indexer(index.get_level_values("datetime"))
        columns = wide.columns.get_indexer(index.get_level_values("instrument"))
        outside = (rows < 0) | (columns < 0)
        if outside.any():
            raise ValueError(
                f"{outside.sum()} rows are on dates or instruments that the bars do not have, the first is "
                f"{index[int(np.argmax(outside))]}. Evaluate forecasts on the bars they were made from."
            )
        return pd.Series(wide.to_numpy()[rows, columns], index=index)

    def overlap(self, dates: pd.DatetimeIndex, horizon: int) -> int:
        """Number of successive forecast dates that a label of `horizon` bars spans.

        Where the dates are unevenly spaced, the closest two decide; 1 for a single date.
        """
        steps = np.diff(np.sort(self.calendar.get_indexer(dates)))
        return label_overlap(horizon, int(steps.min())) if len(steps) else 1
