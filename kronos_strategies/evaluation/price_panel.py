"""What a market did: labels that follow each date, and what was known on it. Torch-free.

Time is the market's: t + h is h trading days of the union calendar on, as in the future stamps of a forecast,
whether or not a name traded in between. A label is NaN unless the name traded on both of its ends, as Qlib's
labels are: without a trade nobody could have bought or sold, and a repeated close would be a price that no one
quoted. What is known on a date, the naive signals, lets the last known close stand in, as `kronos_strategies.qlib`
does.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos_strategies.evaluation.baselines import BASELINES, low_volatility_20
from kronos_strategies.evaluation.distribution.volatility import (
    forward_sum,
    garman_klass,
    overnight,
    realized_variance,
)
from kronos_strategies.evaluation.significance import label_overlap

EWMA_DECAY = 0.94  # RiskMetrics' for days
CLOSES, RANGES = "closes", "ranges"  # the two measures of realised variance


@dataclass(frozen=True)
class PricePanel:
    """Adjusted bars of a market, wide: dates x instruments, NaN on a day without a trade.

    Attributes:
        opens: adjusted.
        closes: adjusted.
        amounts: traded, in quote currency.
        ranges: variance of each bar by Garman & Klass plus the squared overnight gap.
    """

    opens: pd.DataFrame
    closes: pd.DataFrame
    amounts: pd.DataFrame
    ranges: pd.DataFrame

    @classmethod
    def of(cls, panel: pd.DataFrame) -> PricePanel:
        """From adjusted bars indexed (datetime, instrument), suspended days absent.

        Amount, where there is none, is volume times the mean of the bar's prices, as in the windows.
        """
        if "amount" not in panel:
            panel = panel.assign(amount=panel["volume"] * panel[list(PRICES)].mean(axis=1))
        wide = (panel[name].unstack("instrument").sort_index() for name in (*PRICES, "amount"))
        open_, high, low, close, amount = wide
        return cls(open_, close, amount, garman_klass(open_, high, low, close) + overnight(open_, close))

    @classmethod
    def read(cls, file: Path) -> PricePanel:
        """What `write` has kept."""
        long = pd.read_parquet(file)
        return cls(**{f.name: long[f.name].unstack("instrument").sort_index() for f in fields(cls)})

    def write(self, file: Path) -> None:
        """Keep it as one parquet file, a row a (datetime, instrument)."""
        long = {f.name: getattr(self, f.name).stack(future_stack=True) for f in fields(self)}
        pd.DataFrame(long).dropna(how="all").to_parquet(file, compression="zstd")

    @property
    def calendar(self) -> pd.DatetimeIndex:
        """Days on which any name traded."""
        return pd.DatetimeIndex(self.closes.index)

    def earned(self, horizon: int, price: str = "close") -> pd.DataFrame:
        """Simple return price(t+1) -> price(t+1+h), at "close" or "open": a signal dated t trades a bar later."""
        traded = {"close": self.closes, "open": self.opens}[price]
        return traded.shift(-1 - horizon) / traded.shift(-1) - 1

    def moved(self, horizon: int) -> pd.DataFrame:
        """Log return close(t) -> close(t+h): what paths that start at close(t) describe."""
        return (self.closes.shift(-horizon) / self.closes).apply(np.log)

    def variance(self, horizon: int) -> dict[str, pd.DataFrame]:
        """Realised variance of bars t+1..t+h by CLOSES (squared log returns) and by RANGES.

        The second is several times less noisy, which tells when h is small. A day without a trade adds nothing.
        """
        by_closes = realized_variance(self.closes, horizon)
        by_ranges = forward_sum(self.ranges.fillna(0.0), horizon).where(by_closes.notna())
        return {CLOSES: by_closes, RANGES: by_ranges}

    @cached_property
    def known(self) -> pd.DataFrame:
        """Last known close."""
        return self.closes.ffill()

    @cached_property
    def deviation(self) -> pd.DataFrame:
        """Deviation of the last 20 daily returns, known at the close: historical volatility."""
        return -low_volatility_20(self.known)

    @cached_property
    def ewma(self) -> pd.DataFrame:
        """Root of the exponentially weighted mean of squared daily log returns, known at each close."""
        squares = self.known.apply(np.log).diff() ** 2
        return squares.ewm(alpha=1 - EWMA_DECAY, min_periods=20).mean() ** 0.5

    @cached_property
    def naive(self) -> dict[str, pd.DataFrame]:
        """The scores of BASELINES."""
        return {name: signal(self.known) for name, signal in BASELINES.items()}

    def at(self, wide: pd.DataFrame, keys: pd.MultiIndex) -> pd.Series:
        """The entries of a frame of this market at (datetime, instrument) pairs.

        Raises:
            ValueError: a pair is outside the market.
        """
        rows = wide.index.get_indexer(keys.get_level_values("datetime"))
        columns = wide.columns.get_indexer(keys.get_level_values("instrument"))
        outside = (rows < 0) | (columns < 0)
        if outside.any():
            raise ValueError(
                f"{outside.sum()} forecasts are of no date or name of the market, the first "
                f"{keys[int(np.argmax(outside))]}. Score them on the bars they were made of."
            )
        return pd.Series(wide.to_numpy()[rows, columns], index=keys)

    def overlap(self, dates: pd.DatetimeIndex, horizon: int) -> int:
        """How many successive forecast dates a label of `horizon` bars spans: ceil(horizon / bars between them).

        Where the dates are uneven the nearest two decide; 1 for a single date.
        """
        steps = np.diff(np.sort(self.calendar.get_indexer(dates)))
        return label_overlap(horizon, int(steps.min())) if len(steps) else 1
