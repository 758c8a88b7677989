"""A market of independent names in which yesterday's fall is given back later: an effect that a head can learn."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos.bars import FEATURES

DAYS = pd.bdate_range("2022-01-03", periods=160, name="datetime")


def panel_of(names: int = 30, seed: int = 0, reversal: float = 0.0) -> dict[str, pd.DataFrame]:
    """Bars by name; a share `reversal` of a day's own return is given back two days later, at close(t + 2)."""
    random = np.random.default_rng(seed)
    panel = {}
    for i in range(names):
        noise = random.normal(0, 0.02, len(DAYS))
        steps = noise.copy()
        steps[2:] -= reversal * noise[:-2]
        close = 50 * np.exp(np.cumsum(steps))
        volume = random.lognormal(10, 0.3, len(DAYS))
        columns = [close, close * 1.001, close * 0.999, close, volume, volume * close]
        panel[f"N{i:02d}"] = pd.DataFrame(dict(zip(FEATURES, columns, strict=True)), index=DAYS)
    return panel


def keys_of(panel: dict[str, pd.DataFrame], first: int = 30) -> pd.MultiIndex:
    """Every name on every date from number `first` on, in order of (datetime, instrument)."""
    return pd.MultiIndex.from_product([DAYS[first:], sorted(panel)], names=["datetime", "instrument"])
