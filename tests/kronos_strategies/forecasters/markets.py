"""Bars of a small market whose returns have a volatility that the last bars show."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos.bars import FEATURES

DAYS = pd.bdate_range("2022-01-03", periods=200, name="datetime")


def panel_of(names: int = 3, seed: int = 0, days: pd.DatetimeIndex = DAYS) -> dict[str, pd.DataFrame]:
    """Bars by instrument: returns of 1 to 3 % a day, and gaps and ranges of a few tenths of a percent."""
    random = np.random.default_rng(seed)
    panel = {}
    for i in range(names):
        steps = random.normal(0, 0.01 + 0.02 * i / names, len(days))
        close = 50 * np.exp(np.cumsum(steps))
        open_ = close * np.exp(random.normal(0, 0.002, len(days)) - steps)
        high = np.maximum(open_, close) * np.exp(np.abs(random.normal(0, 0.003, len(days))))
        low = np.minimum(open_, close) * np.exp(-np.abs(random.normal(0, 0.003, len(days))))
        volume = random.lognormal(10, 0.3, len(days))
        columns = [open_, high, low, close, volume, volume * close]
        panel[f"N{i:02d}"] = pd.DataFrame(dict(zip(FEATURES, columns, strict=True)), index=days)
    return panel


def tidy(panel: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The bars as one table with columns instrument and datetime."""
    return pd.concat(panel, names=["instrument"]).reset_index()


def panel_from(bars: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The reverse of `tidy`."""
    return {str(name): own.set_index("datetime")[list(FEATURES)] for name, own in bars.groupby("instrument")}
