"""Backtrader's plot as a file, on machines without a screen."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.utils import MissingExtra, explain_write_errors, write_atomic
from kronos_strategies.backtrader.feed_bars import to_local, to_utc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UP, DOWN, GRAY = "#009E73", "#D55E00", "#404040"
MAJOR_ROWS, MINOR_ROWS = 6, 2  # of the panel of a feed, and of an indicator
ROW_HEIGHT = 0.45  # inches
MIN_HEIGHT = 8.0  # inches
LEGEND_HEIGHT = 0.22  # inches
MAX_TICKS = 10
MAX_OVERFLOW = 0.6  # share of the price range that lines over it may add above and below
_OBSERVER_PARAMS = re.compile(r" \((?:None|True|False)[^)]*\)")


def save_plot(
    strategy: bt.Strategy, path: str | Path, width: float = 14.0, height: float | None = None
) -> Path:
    """Draw a strategy after its run: prices as candles, indicators and observers, without volume.

    Times are in the time zone of the first feed. Open figures and the backend of matplotlib stay as they are.

    Args:
        strategy: one of those returned by `cerebro.run()`.
        path: file of the picture, e.g. "run.png" or "run.svg"; its folder is created.
        width: width in inches.
        height: height in inches; when omitted, by the number of panels.

    Returns:
        The path.

    Raises:
        ValueError: the strategy has no bar, or matplotlib draws no picture of that suffix.
        OSError: the file cannot be written.
        MissingExtra: matplotlib is missing.
    """
    if not len(strategy):
        raise ValueError("The strategy has no bars, so there is nothing to draw. Run it first.")
    try:
        import matplotlib

        backend = matplotlib.get_backend(auto_select=False)
        from backtrader.plot import PlotScheme  # sets a backend, so ours is set afterwards
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtra("Plots need matplotlib: pip install 'kronos-strategies[backtrader]'") from error
    path, picture = Path(path), BytesIO()
    pyplot.switch_backend("Agg")
    current = pyplot.get_fignums() and pyplot.gcf().number
    try:
        plotter = _plotter(_scheme(PlotScheme()))
        number = max([0, *pyplot.get_fignums()]) + 1
        (figure,) = plotter.plot(strategy, figid=number, numfigs=1, iplot=False)
        figure.set_size_inches(width, height or max(MIN_HEIGHT, ROW_HEIGHT * plotter.pinf.nrows))
        _tidy(figure, strategy)
        figure.savefig(picture, format=path.suffix[1:] or "png", dpi=120, bbox_inches="tight")
        pyplot.close(figure)
    finally:
        if current:
            pyplot.figure(current)
        if backend is not None:
            pyplot.switch_backend(backend)
    with explain_write_errors(path, "Choose another file for the picture."):
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_atomic(path, picture.getvalue())


def _plotter(scheme: bt.plot.PlotScheme) -> Any:
    from backtrader.plot import Plot

    class Plotter(Plot):
        """Backtrader's plotter, with enough rows for all panels, and marks at their own bars."""

        def calcrows(self, strategy: bt.Strategy) -> None:
            super().calcrows(strategy)  # counts one row per indicator, whose panel has several
            panels = [own for side in (self.dplotsup, self.dplotsdown) for own in side.values()]
            self.pinf.nrows += sum(map(len, panels)) * (self.pinf.sch.rowsminor - 1)

        def plotind(self, iref: Any, ind: Any, *rest: Any, **options: Any) -> None:
            # With runonce an observer has one value per bar of the strategy, not of its feed.
            info, bars = self.pinf, len(self.pinf.clock)
            kept = info.xdata, info.xstart, info.xend
            if isinstance(ind, bt.Observer) and len(ind) == bars:
                info.xdata, info.xstart, info.xend = info.x, 0, bars
            super().plotind(iref, ind, *rest, **options)
            info.xdata, info.xstart, info.xend = kept

    return Plotter(scheme=scheme)


def _scheme(scheme: bt.plot.PlotScheme) -> bt.plot.PlotScheme:
    scheme.style, scheme.barup, scheme.bardown, scheme.loc = "candle", UP, DOWN, GRAY
    scheme.volume = scheme.valuetags = scheme.linevalues = False
    scheme.rowsmajor, scheme.rowsminor = MAJOR_ROWS, MINOR_ROWS
    scheme.tickrotation, scheme.yadjust = 0, 0.05
    return scheme


def _tidy(figure: Figure, strategy: bt.Strategy) -> None:
    """Keep legends, marks and times within their panels."""
    from matplotlib.ticker import MaxNLocator

    positions, labels = _ticks(strategy)
    last = figure.axes[-1]
    marks = next((each for each in strategy.getobservers() if isinstance(each, bt.observers.BuySell)), None)
    for axes in figure.axes:
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.set_xticks(positions, labels if axes is last else [""] * len(labels))
        axes.tick_params(axis="x", labelbottom=axes is last, labelsize=8)
        axes.tick_params(axis="y", labelsize=8)
        axes.set_xlim(-1, len(strategy))
        if marks is not None:
            _move_marks(axes, marks.p.bardist if marks.p.barplot else 0.0)
        _widen(axes)
        _legend(axes)
        axes.yaxis.set_major_locator(MaxNLocator(6 if _inches(axes) > 2.2 else 4, prune="both"))


def _move_marks(axes: Axes, distance: float) -> None:
    """Move purchases and sales next to their bars; Backtrader draws them at a share of the price away."""
    low, high = axes.get_ylim()
    for line in axes.get_lines():
        side = {"^": -1, "v": 1}.get(str(line.get_marker()))
        if side is not None and str(line.get_label()).endswith(("buy", "sell")):
            line.set_ydata(
                np.asarray(line.get_ydata(), float) / (1 + side * distance) + side * 0.04 * (high - low)
            )
            line.set_markersize(6)


def _widen(axes: Axes) -> None:
    """Add room for marks and bands that Backtrader would cut off, and for the legend above them."""
    low, high = axes.get_ylim()
    margin, reach = 0.04 * (high - low), MAX_OVERFLOW * (high - low)
    for line in axes.get_lines():
        value, is_mark = np.asarray(line.get_ydata(), float), line.get_linestyle() == "None"
        inner = value[np.isfinite(value)]
        if not is_mark:
            inner = inner[(inner > low - reach) & (inner < high + reach)]
        if len(inner):
            room = margin * (3 if is_mark else 1)
            low, high = min(low, inner.min() - room), max(high, inner.max() + room)
    legend = min(0.5, LEGEND_HEIGHT / _inches(axes))  # share of the panel
    axes.set_ylim(low, high + legend / (1 - legend) * (high - low))


def _inches(axes: Axes) -> float:
    """Height of a panel."""
    return float(axes.get_window_extent().height / axes.figure.dpi)


def _legend(axes: Axes) -> None:
    """Draw the legend in one line at the top of the panel."""
    legend = axes.get_legend()
    if legend is None:
        return
    handles = [handle for handle in legend.legend_handles if handle is not None]
    names = [_OBSERVER_PARAMS.sub("", text.get_text()).replace("\n", ": ") for text in legend.get_texts()]
    axes.legend(
        handles, names, loc="upper left", ncol=len(names), fontsize=7, frameon=False,
        borderaxespad=0.3, handlelength=1.6, columnspacing=1.4,
    )  # fmt: skip


def _ticks(strategy: bt.Strategy) -> tuple[list[int], list[str]]:
    """Positions and labels of ticks along the strategy's bars.

    Ticks are where a year, month, day or hour begins: at least MAX_TICKS / 2 and at most MAX_TICKS where possible.
    Within days, labels show the time, and the date at its first tick.
    """
    numbers = np.array(strategy.datetime.get(size=len(strategy)), float)
    times = pd.DatetimeIndex(to_local(to_utc(numbers), strategy.data))
    intraday = bool(times.normalize().duplicated().any())
    periods = [times.to_period(unit) for unit in ("Y", "M", "D")] + ([times.floor("h")] if intraday else [])
    begins = [np.flatnonzero(~period.duplicated()) for period in periods]
    fit = [each for each in begins if MAX_TICKS / 2 <= len(each) <= MAX_TICKS]
    if fit:
        positions = fit[0]
    else:
        finer = next((each for each in begins if len(each) > MAX_TICKS), np.arange(len(times)))
        positions = finer[:: -(-len(finer) // MAX_TICKS)]
    days = times[positions].normalize()
    if not (intraday and (days.duplicated().any() or len(np.unique(times.normalize())) == 1)):
        return positions.tolist(), list(times[positions].strftime("%Y-%m-%d"))
    is_first = ~days.duplicated()
    return positions.tolist(), [
        f"{time:%H:%M}\n{time:%Y-%m-%d}" if first else f"{time:%H:%M}"
        for time, first in zip(times[positions], is_first, strict=True)
    ]
