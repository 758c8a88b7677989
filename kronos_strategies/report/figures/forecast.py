"""The picture of a forecast: candles with volume, fan of quantiles, sampled paths, median candles, truth."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos.forecast import Forecast
from kronos.panels import Bars
from kronos_strategies.evaluation.distribution.forecast_chart import PATHS, ForecastChart, forecast_chart
from kronos_strategies.report.figures.base import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    RULE,
    VERMILLION,
    Axis,
    as_float32,
    band,
    figure,
    go,
    text,
    translucent,
)  # fmt: skip

PRICE, VOLUME = [0.25, 1.0], [0.0, 0.19]  # heights of the panels
HEIGHT = 540  # pixels
VALUE = ".6~g"


def plot(
    forecast: Forecast,
    bars: Bars | None = None,
    instrument: str | None = None,
    history: int | None = None,
    paths: int = PATHS,
) -> go.Figure:
    """Draw the forecast of one instrument.

    Candles with volume, 50 % and 90 % bands of the sampled closes, some sampled paths, and the median candle of
    each step. Bars stand side by side, without gaps for nights and weekends.

    Args:
        forecast: forecast of any number of windows.
        bars: bars of the instrument in a form that `KronosPredictor.forecast` takes. Those up to the date of the
            forecast are drawn before it, later ones as the truth that was held back, bar by bar.
        instrument: which one to draw; not needed where there is one. Of several dates, the last is drawn.
        history: number of bars before the forecast; twice the horizon, but 40 to 160, when omitted.
        paths: number of sampled paths to draw.

    Returns:
        A plotly figure. `save_forecast_plot` writes it as a page or a picture.

    Raises:
        ValueError: several instruments and none named, an unknown name, or bars that do not contain the last bar.
    """
    return draw(forecast_chart(forecast, bars, instrument, history, paths))


def draw(chart: ForecastChart) -> go.Figure:
    """The figure of a chart."""
    at = [chart.labels[place] for place in chart.ahead]
    seen, following = chart.labels[: len(chart.history)], at[1:]
    fan = np.vstack([np.full(4, chart.last_close), chart.fan])
    traces = [
        band(at, fan[:, 2], fan[:, 3], BLUE, 0.13).update(name="90% band", showlegend=True),
        band(at, fan[:, 0], fan[:, 1], BLUE, 0.2).update(name="50% band", showlegend=True),
        _paths(chart, at),
        _candles(chart.history, seen, "bars", GREEN, VERMILLION, 0.9),
    ]
    if len(chart.truth):
        traces.append(_candles(chart.truth, following, "held back", GREEN, VERMILLION, 0.9))
    traces.append(_candles(chart.median, following, "median of paths", BLUE, BLUE, 0.4))
    if chart.has_volume:
        traces += [
            _volume(chart.history, seen, "volume", GREY, 0.55),
            _volume(chart.median, following, "median volume", BLUE, 0.45),
        ]
        if len(chart.truth):
            traces.append(_volume(chart.truth, following, "volume held back", GREY, 0.55))
    drawn = figure(traces, Axis("price", VALUE), Axis("", kind="category"))
    return _laid_out(drawn, chart)


def _laid_out(drawn: go.Figure, chart: ForecastChart) -> go.Figure:
    """With two panels, a title, labels of time and a line at the time of the forecast."""
    now = len(chart.history) - 0.5
    drawn.update_layout(
        title={"text": text(chart.title), "x": 0.01, "xanchor": "left", "font": {"size": 14}},
        height=HEIGHT,
        margin={"t": 56},
        # Below: on a phone it takes several rows, of two entries with short marks.
        legend={"y": -0.1, "yanchor": "top", "itemwidth": 30, "font": {"size": 11}},
        barmode="overlay",
        bargap=0.25,
        shapes=[
            {
                "type": "line", "x0": now, "x1": now, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
                "line": {"color": RULE, "width": 1.2, "dash": "dot"},
            }
        ],
    )  # fmt: skip
    drawn.update_xaxes(
        categoryorder="array",
        categoryarray=chart.labels,
        range=[-1, len(chart.labels)],
        tickmode="array",
        tickvals=chart.ticks,
        ticktext=[chart.tick_text(place).replace("\n", "<br>") for place in chart.ticks],
        tickangle=0,
        rangeslider={"visible": False},
        anchor="y2" if chart.has_volume else "y",
    )
    drawn.update_yaxes(nticks=10)
    if chart.has_volume:
        drawn.update_yaxes(domain=PRICE)
        drawn.update_layout(
            yaxis2={
                "domain": VOLUME, "anchor": "x", "automargin": True, "nticks": 3, "gridcolor": FAINT,
                "title": {"text": "volume", "standoff": 8, "font": {"size": 12}}, "rangemode": "tozero",
                "hoverformat": ".4~s", "tickformat": "~s", "zerolinecolor": RULE,
            }
        )  # fmt: skip
    return drawn


def _candles(
    bars: pd.DataFrame, at: list[str], name: str, up: str, down: str, opacity: float
) -> go.Candlestick:
    """Candles; those that close lower have the second color and are filled more."""
    return go.Candlestick(
        x=at[: len(bars)],
        **{price: as_float32(bars[price]) for price in ("open", "high", "low", "close")},
        name=name,
        increasing={"line": {"color": up, "width": 1}, "fillcolor": translucent(up, opacity)},
        decreasing={"line": {"color": down, "width": 1}, "fillcolor": translucent(down, max(opacity, 0.7))},
    )


def _paths(chart: ForecastChart, at: list[str]) -> go.Scatter:
    """All sampled paths as one trace, so that one click hides them."""
    closes = [np.r_[chart.last_close, path, np.nan] for path in chart.paths]
    return go.Scatter(
        x=[*at, at[-1]] * len(closes),
        y=as_float32(np.concatenate([*closes, []])),
        name=f"{len(closes)} sampled paths",
        mode="lines",
        line={"color": translucent(BLUE, 0.5), "width": 0.8},
        hoverinfo="skip",
        connectgaps=False,
        showlegend=bool(closes),
    )


def _volume(bars: pd.DataFrame, at: list[str], name: str, color: str, opacity: float) -> go.Bar:
    return go.Bar(
        x=at[: len(bars)],
        y=as_float32(bars["volume"]),
        name=name,
        yaxis="y2",
        marker={"color": translucent(color, opacity), "line": {"width": 0}},
        showlegend=False,
    )
