"""Qlib's Alpha158 features of windows, from their own bars alone, so that every engine computes the same ones.

The 157 features have the names and formulas of `qlib.contrib.data.handler.Alpha158`, without VWAP0, which few data
directories have. Three things differ from Qlib's handler:

- Qlib counts calendar days, on which a suspended stock has no price; a window has traded bars only. For an
  instrument that trades every day both agree to rounding.
- Values that Qlib makes infinite or arbitrary are NaN: features over a volume of 0, and the fit of a line to a
  constant price.
- A window of fewer than BARS bars gives what its bars allow, as a Qlib data directory does in its first days.
"""

from __future__ import annotations

import numpy as np

from kronos.bars import CLOSE, FEATURES, PRICES
from kronos.windows import Windows

SPANS = (5, 10, 20, 30, 60)  # bars
BARS = max(SPANS) + 1  # bars that features read: changes over the longest span need one more
CHUNK = 8192  # windows at once: some 100 MiB of intermediate arrays
TINY = 1e-12  # Qlib's constant against a division by zero
SAME = 2e-5  # Qlib's limit of a standard deviation, here of unit-free values, below which they are constant

_OPEN, _HIGH, _LOW = (PRICES.index(name) for name in ("open", "high", "low"))
_VOLUME = FEATURES.index("volume")
_BAR_NAMES = (
    "KMID", "KLEN", "KMID2", "KUP", "KUP2", "KLOW", "KLOW2", "KSFT", "KSFT2", "OPEN0", "HIGH0", "LOW0",
)  # fmt: skip
_SPAN_NAMES = (
    "ROC", "MA", "STD", "BETA", "RSQR", "RESI", "MAX", "MIN", "QTLU", "QTLD", "RANK", "RSV",
    "IMAX", "IMIN", "IMXD", "CORR", "CORD", "CNTP", "CNTN", "CNTD", "SUMP", "SUMN", "SUMD",
    "VMA", "VSTD", "WVMA", "VSUMP", "VSUMN", "VSUMD",
)  # fmt: skip
NAMES: tuple[str, ...] = (*_BAR_NAMES, *(f"{name}{span}" for name in _SPAN_NAMES for span in SPANS))


def alpha158(windows: Windows) -> np.ndarray:
    """(N, 157) float64 features in the order of NAMES, known at the close of each window's last bar.

    A row depends on its own window's last BARS bars only. NaN where a feature is undefined.
    """
    features = np.empty((len(windows), len(NAMES)))
    for start in range(0, len(windows), CHUNK):
        rows = slice(start, start + CHUNK)
        features[rows] = _features(_last_bars(windows[rows]))
    return features


def _last_bars(windows: Windows) -> np.ndarray:
    """(N, BARS, 6) float64 last bars, the last one at the end; NaN before a shorter window."""
    back = np.arange(BARS - 1, -1, -1)
    known = back < windows.lengths[:, None]
    rows = np.where(known, windows.end_positions[:, None] - back, windows.end_positions[:, None])
    return np.where(known[..., None], windows.bars[rows].astype(np.float64), np.nan)


def _features(bars: np.ndarray) -> np.ndarray:
    """(N, 157) features of (N, BARS, 6) bars."""
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = _shape_of_last_bar(bars[:, -1])
        for span in SPANS:
            found = _prices(bars, span) | _changes(bars, span) | _volumes(bars, span)
            columns |= {f"{name}{span}": column for name, column in found.items()}
    features = np.stack([columns[name] for name in NAMES], axis=1)
    return np.where(np.isfinite(features), features, np.nan)


def _shape_of_last_bar(bar: np.ndarray) -> dict[str, np.ndarray]:
    """The features of (N, 6) bars that need no other bar."""
    open_, high, low, close = (bar[:, column] for column in range(len(PRICES)))
    above, below = high - np.maximum(open_, close), np.minimum(open_, close) - low
    reach = high - low + TINY
    body, shift = close - open_, 2 * close - high - low
    values = (
        body / open_, (high - low) / open_, body / reach, above / open_, above / reach,
        below / open_, below / reach, shift / open_, shift / reach,
        open_ / close, high / close, low / close,
    )  # fmt: skip
    return dict(zip(_BAR_NAMES, values, strict=True))


def _prices(bars: np.ndarray, span: int) -> dict[str, np.ndarray]:
    """Level, trend and range of the prices of the last `span` bars."""
    closes, last = bars[:, -span:, CLOSE], bars[:, -1, CLOSE]
    highs, lows = bars[:, -span:, _HIGH], bars[:, -span:, _LOW]
    mean, deviation, count = _moments(closes)
    slope, fit, residual = _line(closes)
    top, bottom = np.fmax.reduce(highs, axis=1), np.fmin.reduce(lows, axis=1)
    absent = span - count  # bars before the window; Qlib counts from the first bar that there is
    highest = np.where(np.isnan(highs), -np.inf, highs).argmax(axis=1) + 1 - absent
    lowest = np.where(np.isnan(lows), np.inf, lows).argmin(axis=1) + 1 - absent
    below, equal = ((compare(closes, last[:, None])).sum(axis=1) for compare in (np.less, np.equal))
    return {
        "ROC": bars[:, -1 - span, CLOSE] / last,
        "MA": mean / last,
        "STD": deviation / last,
        "BETA": slope / last,
        "RSQR": fit,
        "RESI": residual / last,
        "MAX": top / last,
        "MIN": bottom / last,
        "QTLU": _quantile(closes, count, 0.8) / last,
        "QTLD": _quantile(closes, count, 0.2) / last,
        "RANK": (below + (equal + 1) / 2) / count,
        "RSV": (last - bottom) / (top - bottom + TINY),
        "IMAX": highest / span,
        "IMIN": lowest / span,
        "IMXD": (highest - lowest) / span,
    }


def _changes(bars: np.ndarray, span: int) -> dict[str, np.ndarray]:
    """Ups and downs of the last `span` closes, and how they go together with volume."""
    closes, volumes = bars[:, -span - 1 :, CLOSE], bars[:, -span - 1 :, _VOLUME]
    change = np.diff(closes, axis=1)
    known = ~np.isnan(change)
    ups, downs = ((compare(change, 0)).sum(axis=1) / known.sum(axis=1) for compare in (np.greater, np.less))
    gain, loss, total = _gains(change)
    ratio = closes[:, 1:] / closes[:, :-1]
    flow = np.log(volumes[:, 1:] / volumes[:, :-1] + 1)
    relative = closes[:, 1:] / closes[:, -1:]  # unit-free, which leaves the correlation as it is
    return {
        "CORR": _correlation(relative, np.log(volumes[:, 1:] + 1)),
        "CORD": _correlation(ratio, np.where(np.isfinite(flow), flow, np.nan)),
        "CNTP": ups,
        "CNTN": downs,
        "CNTD": ups - downs,
        "SUMP": gain / total,
        "SUMN": loss / total,
        "SUMD": (gain - loss) / total,
    }


def _volumes(bars: np.ndarray, span: int) -> dict[str, np.ndarray]:
    """Level and changes of the volume of the last `span` bars; NaN where the last bar has none."""
    volumes, closes = bars[:, -span - 1 :, _VOLUME], bars[:, -span - 1 :, CLOSE]
    last = np.where(volumes[:, -1] > 0, volumes[:, -1], np.nan)
    mean, deviation, _ = _moments(volumes[:, 1:])
    turnover = np.abs(closes[:, 1:] / closes[:, :-1] - 1) * volumes[:, 1:]
    level, spread, _ = _moments(turnover)
    gain, loss, total = _gains(np.diff(volumes, axis=1))
    return {
        "VMA": mean / (last + TINY),
        "VSTD": deviation / (last + TINY),
        "WVMA": spread / (level + TINY),
        "VSUMP": gain / total,
        "VSUMN": loss / total,
        "VSUMD": (gain - loss) / total,
    }


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation (one degree of freedom less) and count of the (N, T) values that are not NaN."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    mean = np.where(known, values, 0).sum(axis=1) / count
    squares = np.where(known, values - mean[:, None], 0) ** 2
    return mean, np.sqrt(squares.sum(axis=1) / (count - 1)), count


def _line(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope per bar, R squared and last residual of a line through (N, T) values, NaN left out."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    times = (
        np.arange(values.shape[1])
        - np.where(known, np.arange(values.shape[1]), 0).sum(axis=1)[:, None] / count[:, None]
    )
    level = np.where(known, values, 0).sum(axis=1) / count
    apart = np.where(known, values - level[:, None], 0)
    own = np.where(known, times**2, 0).sum(axis=1)
    shared, spread = (times * apart).sum(axis=1), (apart**2).sum(axis=1)
    slope = shared / own
    constant = np.sqrt(spread / (count - 1)) <= SAME * np.abs(level)
    fit = np.where(constant, np.nan, shared**2 / (own * spread))
    return slope, fit, apart[:, -1] - slope * times[:, -1]


def _quantile(values: np.ndarray, count: np.ndarray, level: float) -> np.ndarray:
    """Quantile of each row of (N, T) values, NaN left out, linear between two values."""
    ordered = np.sort(values, axis=1)  # NaN last
    place = (count - 1) * level
    left = np.floor(place).astype(np.int64)
    right = np.minimum(left + 1, count - 1)
    low, high = (np.take_along_axis(ordered, each[:, None], axis=1)[:, 0] for each in (left, right))
    return low + (place - left) * (high - low)


def _gains(change: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of the rises, of the falls, and of both, of (N, T) changes, NaN left out."""
    gain, loss = np.fmax(change, 0).sum(axis=1), np.fmax(-change, 0).sum(axis=1)
    return gain, loss, gain + loss + TINY


def _correlation(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Correlation of the rows of two (N, T) arrays where both are known; NaN where one is constant."""
    known = ~(np.isnan(left) | np.isnan(right))
    left, right = (np.where(known, each, np.nan) for each in (left, right))
    (mean, deviation, count), (mean_right, deviation_right, _) = _moments(left), _moments(right)
    products = np.where(known, (left - mean[:, None]) * (right - mean_right[:, None]), 0).sum(axis=1)
    found = products / ((count - 1) * deviation * deviation_right)
    return np.where((deviation <= SAME) | (deviation_right <= SAME), np.nan, found)
