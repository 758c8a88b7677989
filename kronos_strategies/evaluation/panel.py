"""Rows keyed (datetime, instrument) <-> dates x instruments. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

ROWS = 65_536  # that are placed at a time: their places stay in cache, and none but them take memory


@dataclass(frozen=True)
class Grid:
    """Where each row lies.

    Attributes:
        dates: ascending, unique.
        names: sorted, unique.
        row: (rows,) integers, of each key, its place in `dates`; as narrow as the index keeps them.
        column: (rows,) integers, of each key, its place in `names`; likewise.
    """

    dates: pd.DatetimeIndex
    names: pd.Index
    row: np.ndarray
    column: np.ndarray

    @classmethod
    def of(cls, keys: pd.MultiIndex, what: str = "data") -> Grid:
        """From an index with levels datetime and instrument, in any order.

        Args:
            keys: of the rows.
            what: they are called in an error.

        Raises:
            ValueError: a level is missing, a key lacks its date or its instrument, or a key occurs twice.
        """
        if missing := {"datetime", "instrument"} - set(keys.names):
            raise ValueError(
                f"The {what} lack the index level '{sorted(missing)[0]}', their levels are {list(keys.names)}. "
                "Index them by (datetime, instrument)."
            )
        (dates, row), (names, column) = (_level(keys, each, what) for each in ("datetime", "instrument"))
        held = cls(cast(pd.DatetimeIndex, dates), names, row, column).held
        if np.count_nonzero(held) < len(keys):
            first = keys[keys.duplicated()][0]
            raise ValueError(f"The {what} have {first} twice. Keep one row of each (datetime, instrument).")
        dates, row = _ascending(dates, row, np.asarray(held.any(axis=1)))
        names, column = _ascending(names, column, np.asarray(held.any(axis=0)))
        return cls(pd.DatetimeIndex(dates, name="datetime"), pd.Index(names, name="instrument"), row, column)

    @property
    def held(self) -> np.ndarray:
        """(dates, names) bool: where there is a row, whatever its value."""
        held = np.zeros((len(self.dates), len(self.names)), bool)
        for _, place in self._places():
            held.reshape(-1)[place] = True
        return held

    def wide(self, values: ArrayLike) -> np.ndarray:
        """(rows,) -> (dates, names) float64; NaN where there is no row, or its value is infinite."""
        array = np.asarray(values)
        if array.shape != self.row.shape:
            raise ValueError(
                f"There are {len(self.row)} keys, but values of shape {array.shape}. Pass a value a key."
            )
        if self._in_order:
            wide = array.astype(float).reshape(len(self.dates), len(self.names))
            wide[np.isinf(wide)] = np.nan
            return wide
        wide = np.full((len(self.dates), len(self.names)), np.nan)
        for rows, place in self._places():
            part = array[rows].astype(float)
            part[np.isinf(part)] = np.nan
            wide.reshape(-1)[place] = part
        return wide

    def long(self, wide: np.ndarray) -> np.ndarray:
        """(dates, names) -> (rows,), in the order of the keys."""
        flat, long = wide.reshape(-1), np.empty(len(self.row), wide.dtype)
        for rows, place in self._places():
            long[rows] = flat[place]
        return long

    @cached_property
    def _in_order(self) -> bool:
        """Whether the keys are every date with every name, date after date, so that none is to be placed."""
        shape = len(self.dates), len(self.names)
        if len(self.row) != shape[0] * shape[1]:
            return False
        ascending = self.column.reshape(shape) == np.arange(shape[1], dtype=self.column.dtype)
        return bool(ascending.all() and (np.arange(shape[0]) == self.row.reshape(shape).T).all())

    def _places(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Some rows, and their places in the flattened grid."""
        for start in range(0, len(self.row), ROWS):
            rows = slice(start, start + ROWS)
            place = self.row[rows].astype(np.int64)
            place *= len(self.names)
            place += self.column[rows]
            yield rows, place


def _level(keys: pd.MultiIndex, name: str, what: str) -> tuple[pd.Index, np.ndarray]:
    """Values of a level, and of each key the number of its own."""
    number = keys.names.index(name)
    codes = np.asarray(keys.codes[number])
    if lacking := np.count_nonzero(codes < 0):
        raise ValueError(f"The {what} have {lacking} rows without a value of '{name}'. Drop them first.")
    return keys.levels[number], codes


def _ascending(level: pd.Index, codes: np.ndarray, occurs: np.ndarray) -> tuple[pd.Index, np.ndarray]:
    """The values that occur, sorted, and of each key the number of its own.

    A level has a value once, though maybe out of order or of no row at all: it is sorted in place of the rows.
    """
    place = np.zeros(len(level), codes.dtype)
    place[occurs], values = pd.factorize(level[occurs], sort=True)
    return values, codes if np.array_equal(place, np.arange(len(level))) else place[codes]
