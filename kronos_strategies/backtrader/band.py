"""KronosBand: the forecast of each bar, drawn on its price."""

from __future__ import annotations

from typing import Any

import backtrader as bt
import numpy as np

from kronos_strategies.backtrader.indicator import PARAMS, bind_lines, find_chair, write
from kronos_strategies.backtrader.outlook import COLUMNS

BLUE = "#0072B2"
BAND = ("forecast_close", "lower", "upper")
_WHICH = [COLUMNS.index(name) for name in BAND]


class KronosBand(bt.Indicator):
    """Where the paths said, `horizon` bars ago, that the close of this bar would be; drawn over the price.

    Parameters and errors are those of `KronosIndicator`, with which it shares the forecasts of equal settings. The
    lines are its lines of the same names, `horizon` bars of the feed later, so known well before the bar that they
    stand at:

    - forecast_close: mean of the paths, a price.
    - lower, upper: of the band that holds `level` of the paths, prices; if the model is right, so much of the
      closes too.

    Between forecasts these hold, so that with `every` above 1 the band is a staircase, exact at its edges; every=1
    draws each bar's own. The band does not delay the strategy: its first `horizon` bars are NaN.
    """

    lines: Any = BAND  # Backtrader makes line buffers of the names
    params = PARAMS
    plotinfo = (("plotname", "Kronos"), ("subplot", False))
    plotlines = (
        ("forecast_close", {"color": BLUE, "linestyle": "--", "linewidth": 1.2}),
        ("lower", {"color": BLUE, "alpha": 0.35, "linewidth": 0.8, "_fill_lt": ("upper", (BLUE, 0.12))}),
        ("upper", {"color": BLUE, "alpha": 0.35, "linewidth": 0.8}),
    )

    def __init__(self) -> None:
        chair, horizon = find_chair(self), self.p.horizon
        bind_lines(BandLines(self.data, chair=chair, horizon=horizon), self)  # type: ignore[call-arg]

    def _plotlabel(self) -> list[object]:
        return [f"{self.p.horizon} bars ahead, {self.p.level:.0%} of paths"]


class BandLines(bt.Indicator):
    """Computes the lines of a `KronosBand`, to which they are bound.

    Params:
        chair: what the forecasts are read from.
        horizon: bars by which the lines are delayed.
    """

    lines: Any = BAND
    params = (("chair", None), ("horizon", 1))

    def __init__(self) -> None:
        self._recent: dict[int, np.ndarray] = {}  # by the feed's number of bars; the last `horizon` of them
        self.addminperiod(self.p.chair.lookback)

    def next(self) -> None:
        """Write the current bar."""
        bars, horizon = len(self.data), self.p.horizon
        self._recent[bars] = self.p.chair.now()[_WHICH]
        self._recent.pop(bars - horizon - 1, None)
        for line, value in zip(self.lines, self._recent.get(bars - horizon, _NOTHING).tolist(), strict=True):
            line[0] = value

    def oncestart(self, start: int, end: int) -> None:
        """Do nothing: `once` writes all bars."""

    def once(self, start: int, end: int) -> None:
        """Write all bars."""
        table = self.p.chair.table()[:, _WHICH]
        later = np.full_like(table, np.nan)
        later[self.p.horizon :] = table[: -self.p.horizon]
        write(self, later)


_NOTHING = np.full(len(BAND), np.nan)
