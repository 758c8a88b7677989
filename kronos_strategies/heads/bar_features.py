"""Fifteen features of the last bars: what a head on hidden states has to beat with the same learner."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd


def bar_features(panel: Mapping[str, pd.DataFrame], keys: pd.MultiIndex) -> pd.DataFrame:
    """Features of each (datetime, instrument), from its own traded bars up to that date.

    Args:
        panel: adjusted bars by instrument, indexed by time.
        keys: (N,) rows.

    Returns:
        Frame indexed by `keys`: returns over 1 to 60 bars, volatility over 5, 20 and 60, volume by its 20-bar mean,
        the place of the close in the 20-bar range, the day's own return and its gap, and the mean range of 20 bars.
    """
    parts = [
        _features(panel[str(name)]).assign(instrument=name)
        for name in keys.get_level_values("instrument").unique()
    ]
    table = pd.concat(parts).rename_axis("datetime").set_index("instrument", append=True)
    return table.reindex(keys)


def _features(bars: pd.DataFrame) -> pd.DataFrame:
    close, volume = bars["close"].astype(float), bars["volume"].astype(float)
    logs = pd.Series(np.log(close), close.index)
    steps, usual = logs.diff(), volume.rolling(20).mean()
    low, high = bars["low"].rolling(20).min(), bars["high"].rolling(20).max()
    columns = {f"return_{k}": logs.diff(k) for k in (1, 2, 5, 10, 20, 60)}
    columns |= {f"volatility_{k}": steps.rolling(k).std() for k in (5, 20, 60)}
    columns |= {f"volume_{k}": volume.rolling(k).mean() / usual for k in (1, 5)}
    columns["place"] = (close - low) / (high - low)
    columns["intraday"] = close / bars["open"] - 1
    columns["gap"] = bars["open"] / close.shift() - 1
    columns["range"] = (bars["high"] / bars["low"] - 1).rolling(20).mean()
    return pd.DataFrame(columns).replace([np.inf, -np.inf], np.nan)
