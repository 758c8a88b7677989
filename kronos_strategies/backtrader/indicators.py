"""KronosIndicator: what Kronos forecasts of a feed, as lines."""

from __future__ import annotations

from array import array
from typing import Any

import backtrader as bt
import numpy as np

from kronos_strategies.backtrader.forecasts import COLUMNS, ForecastSettings
from kronos_strategies.backtrader.scheduler import Chair, Hub
from kronos_strategies.heads.readers import head_names

PARAMS = (
    ("model", "kronos-nano"),
    ("lookback", 90),
    ("horizon", 5),
    ("samples", 20),
    ("every", 5),
    ("T", None),
    ("top_p", None),
    ("top_k", None),
    ("seed", 0),
    ("level", 0.9),
    ("device", None),
    ("store", None),
    ("tokenizer", None),
    ("revision", None),
    ("calibration", "auto"),
    ("candles", "valid"),
    ("limits", "none"),
    ("hold", 0),
    ("score", "auto"),
    ("heads", ""),
)


class KronosIndicator(bt.Indicator):
    """What Kronos forecasts of a feed's next `horizon` bars; make one for each feed.

    Each asset is forecast every `every` bars of its own feed, from its last `lookback` traded bars and nothing
    later; assets that are due at the same bar are forecast in one batch. With S paths p_s of closes, C the close
    and H the horizon, the lines at the bar of a forecast are, and are known at its close:

    - expected_return: mean of p_s[H] / C - 1, a simple return over the horizon.
    - volatility: root mean square of the paths' log returns over paths and steps, per bar.
    - prob_up: share of paths with p_s[H] > C.
    - forecast_close: mean of p_s[H], a price.
    - lower, upper: quantiles of p_s[H] at (1 - level) / 2 and (1 + level) / 2, prices, at Weibull positions;
      widened around the median by the conformal factor of a calibration.
    - max_drawdown: mean of the paths' deepest falls below the highest close so far, C included; 0 or negative.
    - score: what to rank by: the output of a return head, an expected rank of the return over `hold` bars from the
      next close on among the names of a market, in [-0.5, 0.5] * sqrt(12); the expected return without a head.
    - age: bars of this feed since the forecast, 0 where it was made at this bar.

    The first three are those of `kronos_strategies.signals.summary`. Until the next forecast all lines but age
    hold their values. They are NaN before the first forecast, and on bars without four finite, positive prices,
    which count as not traded; a feed that never has `lookback` traded bars has no forecast at all.

    The feed's own bars are counted in spans of `every`, of which one begins with bar number `lookback`. An asset
    is forecast on its first traded bar of each span. Neither other feeds nor a live feed that lags behind them
    change when that is. Under replay the forecast of a bar follows the bar's ticks.

    A forecast depends on its own window, date and settings only. Lines are the same with runonce, without, without
    preload, with exactbars=-1 and -2, and live: bit by bit wherever the matrix products of batches of different
    sizes are, as those of kronos-nano on CPUs are; else within float rounding.

    Args:
        model: bundled name, folder or hub id; loaded once a process.
        lookback: traded bars that the model reads.
        horizon: bars ahead.
        samples: paths.
        every: bars of the feed between forecasts.
        T, top_p, top_k, seed: of the sampling, see `kronos.config.SampleConfig`; None for what suits the model.
        level: share of the paths between lower and upper.
        device: "cpu", "cuda", "mps"; None takes the fastest there is.
        store: folder of a `ForecastStore`, which finds forecasts again in another process; None remembers them
            for other runs of this process.
        tokenizer: of a model that does not know its own.
        revision: of the model on the hub.
        calibration, candles, limits: what is done to the paths before they are read, see
            `kronos.postprocessing.PathOptions`.
        hold: bars that a position is held, which chooses the head's output; 0 takes `every`.
        score: "head", "paths", or "auto": the head where the checkpoint has one, bars are daily, and lookback and
            hold are what it was trained for. A score is its own window's: several outputs are averaged as they are.
        heads: names or folders of heads to average, with commas; the checkpoint's own when empty.

    With samples=0 nothing is sampled, and all lines but score and age are NaN.

    Raises:
        TypeError: the data is no feed, e.g. a line or another indicator.
        ValueError: a parameter is out of range, there is no such model, the feed is out of order, or the run keeps
            too few bars (exactbars=1).
    """

    lines: Any = COLUMNS  # Backtrader makes line buffers of the names
    params = PARAMS
    plotinfo = (("plotname", "Kronos"), ("plothlines", (0.0,)))
    plotlines = (
        ("expected_return", {"color": "#0072B2"}),
        ("volatility", {"color": "#009E73"}),
        ("max_drawdown", {"color": "#D55E00"}),
        # Prices, shares and counts do not go with returns on one axis.
        *(
            (name, {"_plotskip": True})
            for name in ("prob_up", "forecast_close", "lower", "upper", "score", "age")
        ),
    )

    def __init__(self) -> None:
        source = ForecastLines(self.data, chair=find_chair(self))  # type: ignore[call-arg]  # its metaclass takes them
        bind_lines(source, self)

    def _plotlabel(self) -> list[object]:
        return [self.p.model, f"{self.p.horizon} bars ahead"]


class ForecastLines(bt.Indicator):
    """Computes the lines of a `KronosIndicator`, to which they are bound.

    Backtrader computes an indicator's children before the indicator itself. A class derived from `KronosIndicator`
    can thus make lines of its lines, in its `__init__` or in its `next`.

    Params:
        chair: what the lines are read from.
    """

    lines: Any = COLUMNS
    params = (("chair", None),)

    def __init__(self) -> None:
        self.addminperiod(self.p.chair.lookback)

    def next(self) -> None:
        """Write the current bar."""
        for line, value in zip(self.lines, self.p.chair.now().tolist(), strict=True):
            line[0] = value

    def oncestart(self, start: int, end: int) -> None:
        """Do nothing: `once` writes all bars."""

    def once(self, start: int, end: int) -> None:
        """Write all bars."""
        write(self, self.p.chair.table())


def bind_lines(source: bt.Indicator, target: bt.Indicator) -> None:
    """Have the lines of `source`, a child of `target`, write to the lines of the same names of `target`."""
    for name in source.getlinealiases():
        getattr(source.lines, name).addbinding(getattr(target.lines, name))


def find_chair(indicator: bt.Indicator) -> Chair:
    """Where an indicator with PARAMS reads the forecasts of its feed from.

    Raises:
        TypeError, ValueError: as `KronosIndicator`.
    """
    data = indicator.data
    if not isinstance(data, bt.AbstractDataBase):
        raise TypeError(
            f"{type(indicator).__name__} reads the bars of a feed, but got a {type(data).__name__}. Pass the feed "
            "itself, e.g. self.data."
        )
    return Hub.of(indicator).chair(data, settings_of(indicator), indicator.p.every, indicator.p.level)


def settings_of(indicator: bt.Indicator) -> ForecastSettings:
    """What an indicator with PARAMS has forecast.

    Raises:
        ValueError: a parameter is out of range.
    """
    p = indicator.p
    return ForecastSettings(
        model=p.model,
        lookback=p.lookback,
        horizon=p.horizon,
        samples=p.samples,
        T=p.T,
        top_p=p.top_p,
        top_k=p.top_k,
        seed=p.seed,
        device=p.device or None,
        store=p.store or None,
        tokenizer=p.tokenizer or None,
        revision=p.revision or None,
        calibration=str(p.calibration or "auto"),
        candles=p.candles,
        limits=str(p.limits or "none"),
        hold=p.hold or p.every,
        score=p.score,
        heads=head_names(p.heads),
    )


def write(indicator: bt.Indicator, table: np.ndarray) -> None:
    """Fill all bars of an indicator's K lines from (bars, K) values; what lies behind the feed's end stays."""
    for line, values in zip(indicator.lines, table.T, strict=True):
        line.array[: len(values)] = array("d", values.tobytes())


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
