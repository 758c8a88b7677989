"""Forecasts as lines: KronosIndicator computes them, ForecastData has stored ones, for runs that load no model."""

from __future__ import annotations

from array import array
from dataclasses import fields
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import PRICES, check_timestamps
from kronos.calibration import checkpoint_calibration
from kronos.postprocessing import PathOptions
from kronos_strategies.backtrader.feed_bars import EARLIEST, disambiguate_dst
from kronos_strategies.backtrader.forecasts import ForecastSettings
from kronos_strategies.backtrader.lines import (
    ALL_LINES,
    LINES,
    OTHER_PATH_SIGNALS,
    indicator_lines,
    path_statistics,
)
from kronos_strategies.backtrader.scheduler import ForecastCoordinator, IndicatorHandle
from kronos_strategies.store import ForecastSet

SETTINGS = tuple(field.name for field in fields(ForecastSettings))
PARAMS = (*((field.name, field.default) for field in fields(ForecastSettings)), ("level", 0.9))
BLUE = "#0072B2"
BAND = ("forecast_close", "lower", "upper")
_BAND_COLUMNS = [ALL_LINES.index(name) for name in BAND]
_NO_BAND = np.full(len(BAND), np.nan)


class KronosIndicator(bt.Indicator):
    """Forecasts of a feed's next `horizon` bars; create one per feed.

    Each asset is forecast every `every` bars of its own feed, from its last `lookback` traded bars and nothing
    later; assets due at the same bar are forecast in one batch. With S paths p_s of closes, C the close and H the
    horizon, the lines at the bar of a forecast, known at its close, are:

    - expected_return: mean of p_s[H] / C - 1, a simple return over the horizon.
    - volatility: root mean square of the paths' log returns over paths and steps, per bar.
    - prob_up: share of paths with p_s[H] > C.
    - forecast_close: mean of p_s[H], a price.
    - lower, upper: quantiles of p_s[H] at (1 - level) / 2 and (1 + level) / 2, prices, at Weibull positions;
      widened around the median by the conformal factor of a calibration.
    - max_drawdown: mean over the paths of the largest fall below the highest close so far, C included; at most 0.
    - score: the value to rank by. The output of a return head, an expected cross-sectional rank of the return over
      `hold` bars from the next close on, in [-0.5, 0.5] * sqrt(12); without a head the expected return.
    - deviation, risk_adjusted, conviction, prob_up_tiebreak, downside, expected_shortfall, skew, prob_take_profit,
      prob_drawdown: over the whole horizon, see `kronos_strategies.signal.path_signals`.
    - age: bars of this feed since the forecast, 0 at the bar of the forecast.

    The first three are those of `kronos_strategies.signal.summary`. All lines but age keep their values until the
    next forecast. They are NaN before the first forecast, and on bars without four finite, positive prices, which
    do not count as traded; a feed that never has `lookback` traded bars has no forecast.

    The feed's own bars are counted in periods of `every`, one of which begins with bar number `lookback`. An asset
    is forecast on its first traded bar of each period. Neither other feeds nor a live feed that lags them
    change that. Under replay, the forecast of a bar follows the bar's ticks.

    A forecast depends only on its own window, date and settings. Lines are the same with and without runonce,
    without preload, with exactbars=-1 and -2, and live: bit by bit if matrix products do not depend on the batch
    size, as for kronos-nano on CPUs; otherwise within float rounding.

    Args:
        model: bundled name, folder or hub id; loaded once per process.
        lookback: traded bars that the model reads.
        horizon: bars ahead.
        samples: paths. With samples=0 nothing is sampled, and all lines but score and age are NaN.
        every: bars of the feed between forecasts.
        T, top_p, top_k, seed: of the sampling, see `kronos.config.SampleConfig`; None for those of the checkpoint.
        level: share of the paths between lower and upper.
        device: "cpu", "cuda" or "mps"; None for the fastest available.
        store: folder of a `ForecastStore`, which other processes can reuse; None caches within this process.
        tokenizer: for a model that does not name its own.
        revision: revision of the model on the hub.
        calibration, candles, limits: postprocessing of the paths, see `kronos.postprocessing.PathOptions`.
        hold: bars that a position is held, which selects the output of the return head; 0 for `every`.
        score: "head", "paths", or "auto": the head if the checkpoint has one, bars are daily, and it was trained
            for this lookback and hold. A score depends on its own window only: several outputs are averaged as they
            are.
        heads: names or folders of return heads to average, separated by commas; those of the checkpoint when empty.
        calendar: exchange whose sessions the future timestamps follow ("XSHG", "XNYS", "24/7", see
            `kronos.future_timestamps`); None for a calendar added with `cerebro.addcalendar` or, without one, to
            learn the sessions from past bars.
        tail, take_profit, stop_loss, drawdown: levels of some signals, see
            `kronos_strategies.path_signals.PathSignalSettings`.

    Raises:
        TypeError: the data is not a feed but e.g. a line or another indicator.
        ValueError: a parameter is out of range, the model does not exist, bars of the feed are out of order, or the
            run keeps too few bars (exactbars=1).
    """

    lines: Any = ALL_LINES  # Backtrader turns the names into line buffers
    params = PARAMS
    plotinfo = (("plotname", "Kronos"), ("plothlines", (0.0,)))
    plotlines = (
        ("expected_return", {"color": BLUE}),
        ("volatility", {"color": "#009E73"}),
        ("max_drawdown", {"color": "#D55E00"}),
        # Prices, shares and counts do not share an axis with returns.
        *(
            (name, {"_plotskip": True})
            for name in ("prob_up", "forecast_close", "lower", "upper", "score", *OTHER_PATH_SIGNALS, "age")
        ),
    )

    def __init__(self) -> None:
        source = ForecastLines(self.data, handle=get_handle(self))  # type: ignore[call-arg]  # metaclass
        bind_lines(source, self)

    def _plotlabel(self) -> list[object]:
        return [self.p.model, f"{self.p.horizon} bars ahead"]


class ForecastLines(bt.Indicator):
    """Computes the lines of a `KronosIndicator`, which are bound to it.

    Backtrader computes the children of an indicator before the indicator itself. A subclass of `KronosIndicator`
    can therefore derive lines from its lines, in `__init__` or in `next`.

    Params:
        handle: the source of the lines.
    """

    lines: Any = ALL_LINES
    params = (("handle", None),)

    def __init__(self) -> None:
        self.addminperiod(self.p.handle.lookback)

    def next(self) -> None:
        """Write the current bar."""
        for line, value in zip(self.lines, self.p.handle.current_bar().tolist(), strict=True):
            line[0] = value

    def oncestart(self, start: int, end: int) -> None:
        """Do nothing: `once` writes all bars."""

    def once(self, start: int, end: int) -> None:
        """Write all bars."""
        write_lines(self, self.p.handle.all_bars())


class KronosBand(bt.Indicator):
    """Forecasts of the current bar's close, made `horizon` bars ago; drawn over the price.

    Parameters and errors are those of `KronosIndicator`, with which it shares the forecasts of equal settings. Its
    lines are the lines of the same names of a `KronosIndicator`, delayed by `horizon` bars of the feed, so that
    they are known long before the bar they stand at:

    - forecast_close: mean of the paths, a price.
    - lower, upper: bounds of the band that contains `level` of the paths, prices. If the model is right, that share
      of closes lies in the band.

    They keep their values between forecasts, so with `every` above 1 the band is a staircase that is exact at its
    steps; with every=1 each bar has its own. The band does not delay the strategy: its first `horizon` bars are
    NaN.
    """

    lines: Any = BAND
    params = PARAMS
    plotinfo = (("plotname", "Kronos"), ("subplot", False))
    plotlines = (
        ("forecast_close", {"color": BLUE, "linestyle": "--", "linewidth": 1.2}),
        ("lower", {"color": BLUE, "alpha": 0.35, "linewidth": 0.8, "_fill_lt": ("upper", (BLUE, 0.12))}),
        ("upper", {"color": BLUE, "alpha": 0.35, "linewidth": 0.8}),
    )

    def __init__(self) -> None:
        handle, horizon = get_handle(self), self.p.horizon
        source = BandLines(self.data, handle=handle, horizon=horizon)  # type: ignore[call-arg]  # metaclass
        bind_lines(source, self)

    def _plotlabel(self) -> list[object]:
        return [f"{self.p.horizon} bars ahead, {self.p.level:.0%} of paths"]


class BandLines(bt.Indicator):
    """Computes the lines of a `KronosBand`, which are bound to it.

    Params:
        handle: the source of the forecasts.
        horizon: bars by which the lines are delayed.
    """

    lines: Any = BAND
    params = (("handle", None), ("horizon", 1))

    def __init__(self) -> None:
        self._recent: dict[int, np.ndarray] = {}  # last `horizon` forecasts by number of bars of the feed
        self.addminperiod(self.p.handle.lookback)

    def next(self) -> None:
        """Write the current bar."""
        bars, horizon = len(self.data), self.p.horizon
        self._recent[bars] = self.p.handle.current_bar()[_BAND_COLUMNS]
        self._recent.pop(bars - horizon - 1, None)
        for line, value in zip(self.lines, self._recent.get(bars - horizon, _NO_BAND).tolist(), strict=True):
            line[0] = value

    def oncestart(self, start: int, end: int) -> None:
        """Do nothing: `once` writes all bars."""

    def once(self, start: int, end: int) -> None:
        """Write all bars."""
        table = self.p.handle.all_bars()[:, _BAND_COLUMNS]
        delayed = np.full_like(table, np.nan)
        delayed[self.p.horizon :] = table[: -self.p.horizon]
        write_lines(self, delayed)


def bind_lines(source: bt.Indicator, target: bt.Indicator) -> None:
    """Let the lines of `source`, a child of `target`, write to the lines of the same names of `target`."""
    for name in source.getlinealiases():
        getattr(source.lines, name).addbinding(getattr(target.lines, name))


def get_handle(indicator: bt.Indicator) -> IndicatorHandle:
    """The source of the forecasts of an indicator with PARAMS.

    Raises:
        TypeError, ValueError: as for `KronosIndicator`.
    """
    data = indicator.data
    if not isinstance(data, bt.AbstractDataBase):
        raise TypeError(
            f"{type(indicator).__name__} reads the bars of a feed, but got a {type(data).__name__}. Pass the feed "
            "itself, e.g. self.data."
        )
    return ForecastCoordinator.of(indicator).register(data, settings_of(indicator), indicator.p.level)


def settings_of(indicator: bt.Indicator) -> ForecastSettings:
    """Forecast settings of an indicator with PARAMS.

    Raises:
        ValueError: a parameter is out of range.
    """
    return ForecastSettings(**{name: getattr(indicator.p, name) for name in SETTINGS})


def write_lines(indicator: bt.Indicator, table: np.ndarray) -> None:
    """Write (bars, K) values to an indicator's K lines; values after the end of the feed stay."""
    for line, values in zip(indicator.lines, table.T, strict=True):
        line.array[: len(values)] = array("d", values.tobytes())


DEFAULT_OPTIONS = PathOptions()


class ForecastData(bt.feeds.PandasData):
    """Bars with the lines of a `KronosIndicator`, from a DataFrame returned by `join_forecasts`.

        forecasts = read_forecasts(ForecastStore("forecasts").forecast_sets()[0])
        cerebro.adddata(ForecastData(dataname=join_forecasts(bars, forecasts, "AAA"), name="AAA"))

    The feed itself then has expected_return, volatility and so on, in place of a `KronosIndicator(data)`.
    Parameters are those of `bt.feeds.PandasData`.
    """

    lines = ALL_LINES
    params = tuple((name, -1) for name in ALL_LINES)  # columns are found by name


def read_forecasts(
    stored: ForecastSet, level: float = 0.9, options: PathOptions = DEFAULT_OPTIONS
) -> pd.DataFrame:
    """Read the lines of every stored forecast. Reads all paths, so call it once per process.

    Args:
        stored: forecasts of one model with one set of settings.
        level: share of the paths between lower and upper.
        options: postprocessing of the paths.

    Returns:
        DataFrame indexed (datetime, instrument), columns LINES as in `KronosIndicator`, known at the close of the
        bar of that date.

    Raises:
        ValueError: nothing is stored, or the named calibration does not fit.
        CorruptFileError: a file is corrupt.
    """
    provenance, parts, post = stored.settings.provenance, [], None
    for sampled in stored:
        if post is None:
            own = checkpoint_calibration(provenance.model)
            post = options.resolve(own, provenance, sampled.horizon, sampled.spacing)
        forecast = post(sampled)
        table = indicator_lines(path_statistics(forecast), level, forecast.band_factors(level)[:, -1])
        parts.append(pd.DataFrame(table, index=forecast.index, columns=list(LINES)))
    if not parts:
        raise ValueError(
            f"{stored.folder} has no forecasts. Compute them first, e.g. with `kronos store fill`."
        )
    return pd.concat(parts)


def join_forecasts(bars: pd.DataFrame, forecasts: pd.DataFrame, instrument: str) -> pd.DataFrame:
    """Join bars of one instrument with its forecasts.

    A forecast joins the bar of exactly its date and is valid until the next one, like the lines of a
    `KronosIndicator`; bars before the first forecast have NaN, as have bars without four finite, positive prices.

    Args:
        bars: indexed by time, ascending; with a time zone, forecasts are matched by local time.
        forecasts: result of `read_forecasts`.
        instrument: its name there.

    Returns:
        `bars` with the columns LINES and age, the bars since the forecast.

    Raises:
        ValueError: bars are out of order, the instrument is unknown, or no bar is on the date of a forecast.
    """
    if not isinstance(bars.index, pd.DatetimeIndex):
        raise ValueError(f"bars of {instrument} have no DatetimeIndex. Use bars.set_index('datetime').")
    check_timestamps(bars.index.tz_convert(None) if bars.index.tz else bars.index, f"bars of {instrument}")
    local = bars.index.tz_localize(None).to_numpy("datetime64[ns]")
    times = pd.DatetimeIndex(disambiguate_dst(local, EARLIEST))
    known = forecasts.index.get_level_values("instrument")
    if instrument not in known:
        raise ValueError(
            f"There are no forecasts of '{instrument}', only of {sorted(known.unique())[:10]}. Pass one of these."
        )
    own = forecasts.xs(instrument, level="instrument")
    joined = own.reindex(times).to_numpy()
    made = times.isin(own.index)
    if not made.any():
        raise ValueError(
            f"No bar of {instrument} is on the date of a forecast: bars {times[0]} to {times[-1]}, forecasts "
            f"{own.index[0]} to {own.index[-1]}. Daily bars are dated at midnight: bars.index.normalize()."
        )
    latest = np.maximum.accumulate(np.where(made, np.arange(len(times)), -1))
    table = np.column_stack([joined[latest], np.arange(len(times)) - latest])
    prices = bars[[name for name in bars.columns if str(name).lower() in PRICES]].to_numpy(float)
    traded = (np.isfinite(prices) & (prices > 0)).all(axis=1)
    table[(latest < 0) | ~traded] = np.nan
    return pd.concat([bars, pd.DataFrame(table, index=bars.index, columns=list(ALL_LINES))], axis=1)
