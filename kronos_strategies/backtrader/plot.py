"""Backtrader's plot as a file, on machines without a screen."""

from __future__ import annotations

from pathlib import Path

import backtrader as bt

from kronos.extras import MissingExtra

UP, DOWN, GREY = "#009E73", "#D55E00", "#404040"


def save_plot(strategy: bt.Strategy, path: str | Path, width: float = 14.0, height: float = 8.0) -> Path:
    """Draw a strategy that has run: prices as candles, its indicators and observers; volume is left out.

    From then on matplotlib draws to files in this process, since Backtrader would choose a window.

    Args:
        strategy: of what `cerebro.run()` returned.
        path: of the picture, e.g. "run.png" or "run.svg"; its folder is made.
        width, height: in inches.

    Returns:
        The path.

    Raises:
        ValueError: the strategy has seen no bar.
        MissingExtra: matplotlib is missing.
    """
    try:
        from backtrader.plot import Plot, PlotScheme  # chooses a window, so ours comes after
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtra("Plots need matplotlib: pip install 'kronos-strategies[backtrader]'") from error
    if not len(strategy):
        raise ValueError("The strategy has seen no bar, so there is nothing to draw. Run it first.")
    pyplot.switch_backend("Agg")
    (figure,) = Plot(scheme=_scheme(PlotScheme())).plot(strategy, numfigs=1, iplot=False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.set_size_inches(width, height)
    for axes in figure.axes:
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.tick_params(axis="x", labelbottom=axes is figure.axes[-1])
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    return path


def _scheme(scheme: bt.plot.PlotScheme) -> bt.plot.PlotScheme:
    scheme.style, scheme.barup, scheme.bardown, scheme.loc = "candle", UP, DOWN, GREY
    scheme.volume = scheme.valuetags = scheme.linevalues = False
    scheme.rowsmajor, scheme.rowsminor = 6, 2
    scheme.fmt_x_ticks, scheme.tickrotation = "%Y-%m-%d", 0
    scheme.yadjust = 0.05
    return scheme
