"""What a return head learns, of any panel: where a name's return ranks among its date's, beyond volatility.

The same label as in joint training (`kronos.training.bar_array`), whose bars lie on a tape of clean stretches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kronos.training.bar_array import MIN_INSTRUMENTS, VOLATILITY_BARS


def return_labels(
    panel: Mapping[str, pd.DataFrame], keys: pd.MultiIndex, horizons: Sequence[int], until: pd.Timestamp
) -> pd.DataFrame:
    """The label of each (datetime, instrument) and horizon.

    Bars are an instrument's own traded ones. A label of date t uses closes up to its bar t + 1 + h; where that bar
    comes after `until`, the name has no part in that date's ranks.

    Args:
        panel: adjusted bars by instrument, indexed by time.
        keys: (N,) rows to label: the names of a date are ranked among each other.
        horizons: bars from close(t + 1).
        until: last time that any label may use.

    Returns:
        Frame indexed by `keys`, a float column for each horizon; NaN without a label.
    """
    parts = []
    for name in keys.get_level_values("instrument").unique():
        bars = panel[str(name)]
        bars = bars[bars.index <= until]
        close = bars["close"].astype(float)
        steps = pd.Series(np.log(close), close.index).diff()
        columns: dict[int | str, pd.Series] = {h: close.shift(-1 - h) / close.shift(-1) - 1 for h in horizons}
        columns["volatility"] = steps.rolling(VOLATILITY_BARS).std(ddof=0)
        parts.append(pd.DataFrame(columns).assign(instrument=name))
    table = pd.concat(parts).rename_axis("datetime").set_index("instrument", append=True).reindex(keys)
    return pd.DataFrame({h: _label(table[h], table["volatility"]) for h in horizons}, index=keys)


def centered_ranks(values: pd.Series) -> pd.Series:
    """Ranks within each date, ties averaged, from -0.5 for the lowest to 0.5 for the highest; 0 for one name."""
    by_date = values.groupby(level="datetime")
    counts = by_date.transform("count")
    return ((by_date.rank() - 1) / (counts - 1).clip(lower=1) - 0.5).where(counts > 1, 0.0)


def _label(returns: pd.Series, volatility: pd.Series) -> pd.Series:
    known = returns.notna() & volatility.notna()
    rank, style = centered_ranks(returns[known]), centered_ranks(volatility[known])
    sums = pd.DataFrame({"shared": rank * style, "own": style**2}).groupby(level="datetime").transform("sum")
    left = rank - (sums["shared"] / sums["own"].where(sums["own"] > 0, 1.0)) * style
    counts = left.groupby(level="datetime").transform("count")
    return (left * 12**0.5).where(counts >= MIN_INSTRUMENTS).reindex(returns.index)
