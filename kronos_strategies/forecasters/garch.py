"""GARCH as a forecaster: fitted once per instrument and month, filtered to each date.

One fit per window would take hours for a market. A window's model is fitted to returns that end at an anchor,
the last bar of the month before its date, so that all windows of a month share a fit, whichever are forecast
together.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from kronos.bars import FEATURES, STAMPS
from kronos.windows import Windows
from kronos_strategies.forecasters.candles import (
    LEAST,
    MAX_RATIO,
    PastCandles,
    candle_paths,
    draw_bars,
    shape_candles,
    take_bars,
)
from kronos_strategies.forecasters.historical import Baseline, Ewma, EwmaSettings
from kronos_strategies.forecasters.registry import suggestion
from kronos_strategies.forecasters.volatility import (
    UNIT,
    GarchFit,
    VarianceModel,
    arch_version,
    filter_variances,
    fit_garch,
    simulate_deviations,
)

log = logging.getLogger(__name__)

# Numbers of returns that a model is fitted to: the largest that lies before the anchor. Few of them, because each
# needs a fit of its own where the anchor moves back in the windows of a month.
RUNGS = (100, 125, 175, 250, 375, 500, 750, 1000)
MIN_PERIOD = 15  # bars of a period at least, so that a fit serves many dates
PERIODS = ("bar", "hour", "day", "week", "month", "quarter", "year")
CACHE_SIZE = 2**18  # fits, of some 200 bytes

_FITS: dict[bytes, GarchFit | None] = {}


@dataclass(frozen=True)
class GarchSettings:
    """Settings of `Garch`.

    Attributes:
        o: 1 for GJR-GARCH, whose variance rises more after negative returns; 0 for GARCH.
        bars: most returns that a model is fitted to.
        refit: period at whose end a model is fitted, one of PERIODS; "auto" is the shortest of at least MIN_PERIOD
            bars: months of daily bars, days of 5-minute bars.
    """

    o: int = 0
    bars: int = RUNGS[-1]
    refit: str = "auto"

    def __post_init__(self) -> None:
        if self.o not in (0, 1):
            raise ValueError(f"o={self.o} is not an order of GJR-GARCH. Set o=0 or o=1.")
        if self.bars < RUNGS[0]:
            raise ValueError(f"bars={self.bars} are too few for GARCH. Set bars={RUNGS[0]} or more.")
        if self.refit not in ("auto", *PERIODS):
            raise ValueError(
                f"refit={self.refit} is not a period. {suggestion(self.refit, ('auto', *PERIODS))}"
            )


class Garch(Baseline):
    """GARCH(1, 1) or GJR-GARCH with Student's t innovations and the candle shapes of the window.

    A window that is too short for a fit, or whose fit fails, is forecast by EWMA; `notes` counts them.
    """

    def __init__(self, settings: GarchSettings, device: str | None = None) -> None:
        super().__init__("garch", settings, device, arch=arch_version())
        self.settings = settings
        self.fallback = Ewma(EwmaSettings())
        self.counts: Counter[str] = Counter()

    def sample_candles(self, past: PastCandles, windows: Windows, uniforms: np.ndarray) -> np.ndarray:
        """See `Baseline.sample_candles`."""
        fits = self._fits(past, windows)
        fitted = np.array([fit is not None for fit in fits])
        paths = np.empty((*uniforms.shape[:3], len(FEATURES)), np.float32)
        if fitted.any():
            known = [fit for fit in fits if fit is not None]
            paths[fitted] = _garch_paths(past[fitted], np.array(known), uniforms[fitted])
        if not fitted.all():
            paths[~fitted] = self.fallback.sample_candles(past[~fitted], windows[~fitted], uniforms[~fitted])
        return paths

    def notes(self) -> list[str]:
        """Sentences on approximations in the forecasts of this process so far."""
        made, short, failed = (self.counts[each] for each in ("windows", "short", "failed"))
        found = []
        if short:
            found.append(
                f"{short:,} of {made:,} windows are too short for GARCH and were forecast by EWMA: it needs "
                f"{RUNGS[0]} returns before the last period's end. Set a lookback of 300 bars or more."
            )
        if failed:
            found.append(
                f"{failed:,} of {made:,} windows were forecast by EWMA because their GARCH fit failed."
            )
        return found

    def _fits(self, past: PastCandles, windows: Windows) -> list[GarchFit | None]:
        """The model of each window, from the cache or fitted."""
        returns = past.returns * UNIT
        stamps = windows.stamps
        found = []
        for row, anchor in enumerate(anchors(stamps, self.settings.refit)):
            sizes = [size for size in (*RUNGS, self.settings.bars) if size <= min(anchor, self.settings.bars)]
            self.counts["windows"] += 1
            fit = None
            if sizes:
                fit = _cached_fit(returns[row, anchor - max(sizes) : anchor], bool(self.settings.o))
            if fit is None:
                self._count("failed" if sizes else "short", windows.index[row])
            found.append(fit)
        return found

    def _count(self, reason: str, key: object) -> None:
        """Count a window that EWMA forecasts; the first of each process is logged."""
        self.counts[reason] += 1
        if self.counts[reason] == 1:
            why = "the window is too short" if reason == "short" else "its fit failed"
            log.warning("EWMA forecasts %s in place of GARCH, since %s. Others are counted.", key, why)


def anchors(stamps: np.ndarray, refit: str) -> np.ndarray:
    """(N,) number of returns up to the end of the last complete period of each window; 0 without one.

    A period ends where the next bar belongs to another: that a bar is the last of its month is known a bar later.

    Args:
        stamps: (N, T, 5) calendar fields of the bars, T - 1 of which have a return.
        refit: see `GarchSettings`.
    """
    count = stamps.shape[1] - 1
    if refit == "bar":
        return np.full(len(stamps), count)
    ends = {period: _ends(stamps, period) for period in PERIODS[1:]}  # (N, T - 1) each
    last = {period: np.where(end, np.arange(count), 0).max(axis=1) for period, end in ends.items()}
    if refit != "auto":
        return last[refit]
    found = last[PERIODS[-1]]
    for period in reversed(PERIODS[1:-1]):
        long = ends[period].sum(axis=1) * MIN_PERIOD <= count
        found = np.where(long & ends[period].any(axis=1), last[period], found)
    return found


def _ends(stamps: np.ndarray, period: str) -> np.ndarray:
    """(N, T - 1) whether each bar but the last is the last of its period."""
    field = {name: stamps[..., STAMPS.index(name)] for name in STAMPS}
    month = np.diff(field["month"], axis=1) != 0
    day = month | (np.diff(field["day"], axis=1) != 0)
    if period == "hour":
        return day | (np.diff(field["hour"], axis=1) != 0)
    if period == "week":
        # A week that is skipped as a whole ends where the weekday does not advance on another day.
        return day & (np.diff(field["weekday"], axis=1) <= 0)
    if period == "quarter":
        return np.diff((field["month"] - 1) // 3, axis=1) != 0
    if period == "year":
        return np.diff(field["month"], axis=1) < 0
    return day if period == "day" else month


def _cached_fit(returns: np.ndarray, asymmetric: bool) -> GarchFit | None:
    """The fit to these returns, once per process; it starts from values that do not depend on other fits."""
    key = blake2b(np.ascontiguousarray(returns).tobytes(), digest_size=16, key=bytes([asymmetric])).digest()
    if key not in _FITS:
        while len(_FITS) >= CACHE_SIZE:
            del _FITS[next(iter(_FITS))]
        _FITS[key] = fit_garch(returns, asymmetric)
    return _FITS[key]


def _garch_paths(past: PastCandles, fits: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """(N, S, H, 6) paths of models (N, 5), the fields of `GarchFit`."""
    from scipy.special import stdtrit  # a dependency of arch, which the forecaster has imported

    model, freedom = VarianceModel(*fits.T[:4]), fits[:, 4, None, None]
    average = model.omega / (1 - model.persistence)
    variances = filter_variances(model, past.returns * UNIT, np.asarray(average))
    inside = uniforms[..., 0].astype(np.float64).clip(LEAST, 1 - LEAST)
    innovations = stdtrit(freedom, inside) * np.sqrt((freedom - 2) / freedom)
    deviations = simulate_deviations(model, variances[:, -1], innovations)
    chosen = draw_bars(past.returns, past.usable, uniforms[..., 0])
    before = take_bars(np.sqrt(variances[:, :-1]), chosen)
    factor = (deviations / before).clip(1 / MAX_RATIO, MAX_RATIO)
    moves = shape_candles(deviations * innovations / UNIT, take_bars(past.moves, chosen), factor)
    return candle_paths(past, moves, chosen)
