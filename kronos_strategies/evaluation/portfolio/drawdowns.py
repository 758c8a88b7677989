"""The falls of a book, one by one. Torch-free, engine-free."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.portfolio.returns import drawdowns

ROUNDING = 1e-12  # of wealth: nearer than this to its maximum, it is there


def deepest_drawdowns(returns: pd.Series, count: int = 5) -> pd.DataFrame:
    """The deepest falls below an earlier high, deepest first; no rows if it never falls.

    Args:
        returns: (bars,) by datetime, simple returns; a bar without one leaves wealth where it was.
        count: rows at most.

    Returns:
        Columns start (first bar below the high), trough (first of its lowest), end (bar that is back at the high,
        NaT if there is none yet), depth (in [-1, 0)), bars (below the high).
    """
    below = drawdowns(returns)
    dates, depths = pd.DatetimeIndex(below.index), below.to_numpy()
    edges = np.diff((depths < -ROUNDING).astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)  # ends: after the last bar below
    troughs = [a + depths[a:b].argmin() for a, b in zip(starts, ends, strict=True)]
    table = pd.DataFrame(
        {
            "start": dates[starts],
            "trough": dates[np.array(troughs, int)],
            "end": dates.insert(len(dates), pd.NaT)[ends],
            "depth": depths[np.array(troughs, int)],
            "bars": ends - starts,
        }
    )
    return table.sort_values("depth", kind="stable").head(count).reset_index(drop=True)
