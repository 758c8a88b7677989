"""Bars in any form -> the bars of each instrument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from kronos.bars import price_level

KEYS = ("datetime", "instrument")  # index of a panel
UNNAMED = "bars"  # instrument of a single frame
Bars = pd.DataFrame | Mapping[str, pd.DataFrame]


def iter_instruments(bars: Bars) -> Iterator[tuple[str, pd.DataFrame]]:
    """Instruments of bars in any form, with their bars, not checked; that of a single frame is UNNAMED.

    Raises:
        TypeError: neither a frame nor a mapping.
        ValueError: a frame with a column of instruments, or another index of several levels.
    """
    if isinstance(bars, Mapping):
        yield from by_instrument({str(name): frame for name, frame in bars.items()})
    elif not isinstance(bars, pd.DataFrame):
        raise TypeError(
            f"A {type(bars).__name__} cannot be forecast. Pass Windows, a DataFrame of bars, or a dict of such "
            "frames by instrument."
        )
    elif isinstance(bars.columns, pd.MultiIndex) and not isinstance(bars.index, pd.MultiIndex):
        yield from _by_column(bars)
    elif isinstance(bars.index, pd.MultiIndex):
        if set(bars.index.names) == set(KEYS):
            bars = bars.reorder_levels(list(KEYS)).sort_index()
        yield from by_instrument(bars)
    elif "instrument" in bars.columns:
        raise ValueError(
            "bars have a column of instruments. Index them: bars.set_index(['datetime', 'instrument'])."
        )
    else:
        yield UNNAMED, bars


def by_instrument(panel: pd.DataFrame | Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Instruments of a (datetime, instrument) panel or a mapping, in order of their names, with their bars."""
    if isinstance(panel, pd.DataFrame):
        if list(panel.index.names) != list(KEYS):
            how = f"Index it by {list(KEYS)}."
            if isinstance(panel.columns, pd.MultiIndex):
                level = 1 if price_level(panel.columns) == 0 else 0
                how += (
                    f" Columns of two levels become such an index by panel.stack({level}, future_stack=True)."
                )
            raise ValueError(f"The panel is indexed by {list(panel.index.names)}. {how}")
        for name, bars in panel.groupby(level="instrument", sort=True, observed=True):
            yield str(name), bars.droplevel("instrument")
    else:
        yield from sorted(panel.items())


def _by_column(bars: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Instruments of two-level columns, each with the rows in which it has a value."""
    assert isinstance(bars.columns, pd.MultiIndex)
    prices = price_level(bars.columns)
    if prices is None or bars.columns.nlevels != 2:
        yield UNNAMED, bars  # an error of `check_bars` names the columns
        return
    instruments = bars.columns.get_level_values(1 - prices)
    for name in sorted(instruments.unique(), key=str):
        yield str(name), bars.loc[:, instruments == name].droplevel(1 - prices, axis=1).dropna(how="all")
