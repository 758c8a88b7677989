"""Rows indexed (datetime, instrument) as arrays of dates x instruments, and the prices of a market in that form.

A PricePanel has the returns that follow each date, and what was known on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from kronos.bars import PRICES
from kronos_strategies.evaluation.distribution.metrics import (
    forward_sum,
    garman_klass,
    historical_volatility,
    overnight,
    realized_variance,
)
from kronos_strategies.evaluation.significance import label_overlap

ROWS = 65_536  # placed at a time, so that their positions stay in cache and temporary memory stays small


@dataclass(frozen=True)
class PanelIndex:
    """The position of each row in an array of dates x instruments.

    Attributes:
        dates: ascending, unique.
        instruments: sorted, unique.
        row: (rows,) integers, the position of each row's date in `dates`; as narrow as the index stores them.
        column: (rows,) integers, the position of each row's instrument in `instruments`; likewise.
    """

    dates: pd.DatetimeIndex
    instruments: pd.Index
    row: np.ndarray
    column: np.ndarray

    @classmethod
    def from_index(cls, index: pd.MultiIndex, what: str = "data") -> PanelIndex:
        """From an index with the levels datetime and instrument, in any order.

        Args:
            index: index of the rows.
            what: name of the data in error messages.

        Raises:
            ValueError: a level is missing, a key lacks its date or its instrument, or a key occurs twice.
        """
        if missing := {"datetime", "instrument"} - set(index.names):
            raise ValueError(
                f"The {what} lack the index level '{sorted(missing)[0]}', their levels are {list(index.names)}. "
                "Index them by (datetime, instrument)."
            )
        (dates, row), (names, column) = (_level(index, each, what) for each in ("datetime", "instrument"))
        mask = cls(cast(pd.DatetimeIndex, dates), names, row, column).mask
        if np.count_nonzero(mask) < len(index):
            first = index[index.duplicated()][0]
            raise ValueError(f"The {what} have {first} twice. Keep one row per (datetime, instrument).")
        dates, row = _ascending(dates, row, np.asarray(mask.any(axis=1)))
        names, column = _ascending(names, column, np.asarray(mask.any(axis=0)))
        return cls(pd.DatetimeIndex(dates, name="datetime"), pd.Index(names, name="instrument"), row, column)

    @property
    def mask(self) -> np.ndarray:
        """(dates, instruments) bool: True where there is a row, even without a value."""
        mask = np.zeros((len(self.dates), len(self.instruments)), bool)
        for _, place in self._places():
            mask.reshape(-1)[place] = True
        return mask

    def to_wide(self, values: ArrayLike) -> np.ndarray:
        """(rows,) -> (dates, instruments) float64; NaN where there is no row or its value is infinite.

        A read-only view of the values where that is possible: a panel of a whole market has 100 MB.
        """
        array = np.asarray(values)
        if array.shape != self.row.shape:
            raise ValueError(
                f"There are {len(self.row)} rows, but values of shape {array.shape}. Pass one value per row."
            )
        if self._in_order:
            wide = array.astype(float, copy=False).reshape(len(self.dates), len(self.instruments))
            if np.isinf(wide).any():
                return np.where(np.isinf(wide), np.nan, wide)
            wide.flags.writeable = False  # it may be a view of the caller's values
            return wide
        wide = np.full((len(self.dates), len(self.instruments)), np.nan)
        for rows, place in self._places():
            part = array[rows].astype(float)
            part[np.isinf(part)] = np.nan
            wide.reshape(-1)[place] = part
        return wide

    def to_long(self, wide: np.ndarray) -> np.ndarray:
        """(dates, instruments) -> (rows,), in the order of the index."""
        flat, long = wide.reshape(-1), np.empty(len(self.row), wide.dtype)
        for rows, place in self._places():
            long[rows] = flat[place]
        return long

    @cached_property
    def _in_order(self) -> bool:
        """Whether the rows are every date with every instrument in order, so that a reshape suffices."""
        shape = len(self.dates), len(self.instruments)
        if len(self.row) != shape[0] * shape[1]:
            return False
        ascending = self.column.reshape(shape) == np.arange(shape[1], dtype=self.column.dtype)
        return bool(ascending.all() and (np.arange(shape[0]) == self.row.reshape(shape).T).all())

    def _places(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of rows with their positions in the flattened array."""
        for start in range(0, len(self.row), ROWS):
            rows = slice(start, start + ROWS)
            place = self.row[rows].astype(np.int64)
            place *= len(self.instruments)
            place += self.column[rows]
            yield rows, place


def read_rows(file: Path) -> pd.DataFrame:
    """A parquet file of rows indexed (datetime, instrument), as `pd.read_parquet` reads it.

    Instruments are read as codes, not as one string for each row, and columns are not copied.
    """
    file = file.absolute()  # Arrow reads a relative path with a colon as a URL
    schema = pq.read_schema(file)
    kinds = dict(zip(schema.names, schema.types, strict=True))
    if "datetime" not in kinds or kinds.get("instrument") not in (pa.string(), pa.large_string()):
        return pd.read_parquet(file)
    # Without the whole compressed file in memory, which is nearly as large as its values.
    table = pq.read_table(file, read_dictionary=["instrument"], pre_buffer=False)
    names = table.column("instrument").unify_dictionaries().combine_chunks()
    times = pd.DatetimeIndex(table.column("datetime").to_pandas())
    if names.null_count or times.hasnans:
        return pd.read_parquet(file)
    columns = table.drop_columns(["datetime", "instrument"]).replace_schema_metadata()
    del table  # each of these has 100 MB in a whole market
    row, dates = pd.factorize(times, sort=True)
    row = row.astype(np.int32)
    del times
    place, instruments = pd.factorize(pd.Index(names.dictionary.to_pandas()), sort=True)
    codes: Any = [row, place.astype(np.int32)[names.indices.to_numpy()]]
    levels: Any = [pd.DatetimeIndex(dates), pd.Index(instruments)]
    index = pd.MultiIndex(levels, codes, names=["datetime", "instrument"], verify_integrity=False)
    del row, codes, names
    frame = columns.to_pandas(split_blocks=True, self_destruct=True)
    del columns
    pa.default_memory_pool().release_unused()
    return frame.set_axis(index, axis=0)


def _level(index: pd.MultiIndex, name: str, what: str) -> tuple[pd.Index, np.ndarray]:
    """Values of a level, and the code of each row."""
    number = index.names.index(name)
    codes = np.asarray(index.codes[number])
    if missing := np.count_nonzero(codes < 0):
        raise ValueError(f"The {what} have {missing} rows without a value of '{name}'. Drop them first.")
    return index.levels[number], codes


def _ascending(level: pd.Index, codes: np.ndarray, occurs: np.ndarray) -> tuple[pd.Index, np.ndarray]:
    """The values that occur, sorted, and the codes of the rows in that order.

    A level has unique values, though they may be out of order or unused: sorting it is cheaper than sorting rows.
    """
    place = np.zeros(len(level), codes.dtype)
    place[occurs], values = pd.factorize(level[occurs], sort=True)
    return values, codes if np.array_equal(place, np.arange(len(level))) else place[codes]


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
        long = read_rows(file)
        panel = PanelIndex.from_index(cast(pd.MultiIndex, long.index), "prices")
        wide = {f.name: panel.to_wide(long[f.name]) for f in fields(cls)}
        return cls(
            **{name: pd.DataFrame(each, panel.dates, panel.instruments) for name, each in wide.items()}
        )

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
