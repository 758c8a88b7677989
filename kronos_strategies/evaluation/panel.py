"""Conversion between rows indexed (datetime, instrument) and arrays of dates x instruments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

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
        """(rows,) -> (dates, instruments) float64; NaN where there is no row or its value is infinite."""
        array = np.asarray(values)
        if array.shape != self.row.shape:
            raise ValueError(
                f"There are {len(self.row)} rows, but values of shape {array.shape}. Pass one value per row."
            )
        if self._in_order:
            wide = array.astype(float).reshape(len(self.dates), len(self.instruments))
            wide[np.isinf(wide)] = np.nan
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
