"""Rows keyed (datetime, instrument) <-> dates x instruments. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Grid:
    """Where each row lies.

    Attributes:
        dates: ascending, unique.
        names: sorted, unique.
        row: of each key, its place in `dates`.
        column: of each key, its place in `names`.
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
            ValueError: a level is missing, or a key occurs twice.
        """
        if missing := {"datetime", "instrument"} - set(keys.names):
            raise ValueError(
                f"The {what} lack the index level '{sorted(missing)[0]}', their levels are {list(keys.names)}. "
                "Index them by (datetime, instrument)."
            )
        row, dates = pd.factorize(keys.get_level_values("datetime"), sort=True)
        column, names = pd.factorize(keys.get_level_values("instrument"), sort=True)
        grid = cls(pd.DatetimeIndex(dates, name="datetime"), pd.Index(names, name="instrument"), row, column)
        place = row * len(names) + column
        if len(np.unique(place)) < len(place):
            first = keys[keys.duplicated()][0]
            raise ValueError(f"The {what} have {first} twice. Keep one row of each (datetime, instrument).")
        return grid

    def wide(self, values: ArrayLike) -> np.ndarray:
        """(rows,) -> (dates, names) float64; NaN where there is no row, or its value is infinite."""
        scattered = np.full((len(self.dates), len(self.names)), np.nan)
        scattered[self.row, self.column] = values
        scattered[np.isinf(scattered)] = np.nan
        return scattered

    def long(self, wide: np.ndarray) -> np.ndarray:
        """(dates, names) -> (rows,), in the order of the keys."""
        return wide[self.row, self.column]
