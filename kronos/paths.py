"""Functions of sampled paths: repair of invalid bars, price limits, volatility, groups of windows, and bands.

The tokenizer decodes the six features of a bar independently, so that a sampled close may lie above the high of
its bar, and a small volume below zero. `repair_paths` does what `repair_bars` does to real bars: it widens high
and low to include open and close, which determine returns and stay unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from kronos.bars import CLOSE, PRICES

Candles = Literal["valid", "raw"]
PRICE_FLOOR = 1e-3  # relative to the last close: sampled prices at or below zero are raised to it
_OPEN, _HIGH, _LOW = (PRICES.index(name) for name in ("open", "high", "low"))
_ROUNDING = 1e-6  # relative: prices are float32


@dataclass(frozen=True)
class PriceLimits:
    """An exchange's limit on price moves from the previous close.

    Attributes:
        rate: maximum move relative to the previous close, such as 0.1.
        tick: tick size that limits are rounded to, in the bars' own units; None for adjusted prices, since ticks
            refer to unadjusted prices.

    Raises:
        ValueError: a rate outside (0, 1), or a tick that is not positive.
    """

    rate: float
    tick: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(
                f"rate={self.rate} is not a price limit. Pass a share of the previous close, such as 0.1."
            )
        if self.tick is not None and not self.tick > 0:
            raise ValueError(f"tick={self.tick} is not a tick size. Pass a positive number, or None.")


CHINA = {
    "star and ChiNext": PriceLimits(0.2),
    "main board": PriceLimits(0.1),
    "special treatment": PriceLimits(0.05),
}
_TWENTY = re.compile(r"(SH)?(688|689)\d{3}|(SZ)?(300|301)\d{3}")


def china_limits(instrument: str) -> PriceLimits:
    """Limits of a Chinese stock by its code: 20 % on STAR and ChiNext (688, 689, 300, 301), else 10 %.

    Codes do not identify special treatment (5 %), nor that ChiNext had 10 % until 2020-08-23.
    """
    return CHINA["star and ChiNext" if _TWENTY.match(instrument.upper()) else "main board"]


def repair_paths(paths: np.ndarray, last_close: np.ndarray) -> np.ndarray:
    """Valid paths: 0 < low <= open, close <= high, and volume and amount of 0 or more.

    Prices at or below zero are raised to a thousandth of the last close, high and low are widened to include open
    and close, a negative volume or amount becomes 0. Valid bars stay unchanged.

    Args:
        paths: (N, S, H, 6) float32.
        last_close: (N,) positive.
    """
    repaired = paths.copy()
    prices = repaired[..., : len(PRICES)]
    lowest = (PRICE_FLOOR * np.asarray(last_close, np.float64)).astype(np.float32)[:, None, None, None]
    np.maximum(prices, lowest, out=prices, where=np.broadcast_to(lowest > 0, prices.shape))
    high, low = prices.max(axis=-1), prices.min(axis=-1)
    prices[..., _HIGH], prices[..., _LOW] = high, low
    np.maximum(repaired[..., len(PRICES) :], 0, out=repaired[..., len(PRICES) :])
    return repaired


def limit_paths(
    paths: np.ndarray, last_close: np.ndarray, rates: np.ndarray, ticks: np.ndarray
) -> np.ndarray:
    """Paths whose prices stay within limits of the previous close, step by step.

    A path beyond the limit is clipped and approaches its sampled price over the next bars, like a stock that is
    limit up for several days.

    Args:
        paths: (N, S, H, 6) float32.
        last_close: (N,) close before the first step.
        rates: (N,) limits relative to the previous close.
        ticks: (N,) tick sizes that limits are rounded to, half up; NaN for none.
    """
    limited = paths.copy()
    before = np.broadcast_to(np.asarray(last_close, float)[:, None], paths.shape[:2])  # (N, S)
    rates, ticks = rates[:, None], ticks[:, None]
    for step in range(paths.shape[2]):
        low, high = (_rounded(before * (1 + sign * rates), ticks)[..., None] for sign in (-1, 1))
        limited[:, :, step, : len(PRICES)] = paths[:, :, step, : len(PRICES)].clip(low, high)
        before = limited[:, :, step, CLOSE].astype(float)
    return limited


def _rounded(prices: np.ndarray, ticks: np.ndarray) -> np.ndarray:
    steps = np.where(np.isfinite(ticks), ticks, 1.0)
    return np.where(np.isfinite(ticks), np.floor(prices / steps + 0.5) * steps, prices)


@dataclass(frozen=True)
class Violations:
    """Counts of invalid sampled bars before repair.

    Attributes:
        bars: number of sampled bars.
        paths: number of sampled paths.
        outside: bars with open or close outside [low, high].
        paths_outside: paths with at least one such bar.
        crossed: bars with a high below their low.
        not_positive: bars with a price at or below zero.
        negative_volume: bars with a negative volume or amount.
    """

    bars: int = 0
    paths: int = 0
    outside: int = 0
    paths_outside: int = 0
    crossed: int = 0
    not_positive: int = 0
    negative_volume: int = 0

    def __add__(self, other: Violations) -> Violations:
        return Violations(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def shares(self) -> dict[str, float]:
        """Each count relative to all bars, or to all paths for `paths_outside`; NaN without bars."""
        return {
            name: count / total if (total := self.paths if name == "paths_outside" else self.bars) else np.nan
            for name, count in vars(self).items()
            if name not in ("bars", "paths")
        }


def count_violations(paths: np.ndarray) -> Violations:
    """Count the invalid bars of (N, S, H, 6) paths."""
    prices = paths[..., : len(PRICES)]
    high, low = prices[..., _HIGH], prices[..., _LOW]
    slack = _ROUNDING * np.abs(prices).max(axis=-1)
    ends = prices[..., [_OPEN, CLOSE]]
    outside = (ends.max(axis=-1) > high + slack) | (ends.min(axis=-1) < low - slack)
    return Violations(
        bars=int(outside.size),
        paths=int(outside.shape[0] * outside.shape[1]),
        outside=int(outside.sum()),
        paths_outside=int(outside.any(axis=2).sum()),
        crossed=int((high < low).sum()),
        not_positive=int((prices <= 0).any(axis=-1).sum()),
        negative_volume=int((paths[..., len(PRICES) :] < 0).any(axis=-1).sum()),
    )


VOLATILITY_BARS = 20  # log returns in trailing volatility
MAX_RATIO = 4.0  # cap on the ratio of trailing volatility to the standard deviation of paths


def trailing_volatility(closes: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Standard deviation of the last VOLATILITY_BARS log returns of each window, per bar; known at its last close.

    Args:
        closes: (M,) closes of the array of bars that contains the windows.
        ends: (N,) row of each window's last bar.
        lengths: (N,) bars per window.

    Returns:
        (N,) float32; NaN for windows of fewer than 3 bars or with a close that is not positive among them.
    """
    back = np.arange(VOLATILITY_BARS, -1, -1)
    within = back < lengths[:, None]  # (N, VOLATILITY_BARS + 1)
    seen = closes[np.where(within, ends[:, None] - back, ends[:, None])].astype(np.float64)
    steps = np.diff(np.log(np.where(seen > 0, seen, np.nan)), axis=1)
    steps = np.where(within[:, :-1], steps, 0.0)  # bars before the window do not count
    count = within[:, :-1].sum(axis=1)
    mean = steps.sum(axis=1) / np.maximum(count, 1)
    squares = np.where(within[:, :-1], (steps - mean[:, None]) ** 2, 0.0).sum(axis=1)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan).astype(np.float32)


def log_ratio(returns: np.ndarray, trailing: np.ndarray) -> np.ndarray:
    """(N, H) log ratio of trailing volatility to the standard deviation of paths, capped; 0 if one is unknown.

    Args:
        returns: (N, S, H) log returns from the last close.
        trailing: (N,) volatility per bar.
    """
    deviation = returns.std(axis=1, dtype=np.float64)
    expected = trailing[:, None] * np.sqrt(np.arange(1, returns.shape[2] + 1))
    known = (deviation > 0) & (expected > 0)
    ratio = np.log(np.divide(expected, deviation, out=np.ones_like(deviation), where=known))
    return ratio.clip(-np.log(MAX_RATIO), np.log(MAX_RATIO))


def band_ends(
    returns: np.ndarray, level: float, factor: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the central band of sampled log returns: quantiles at Weibull positions.

    Args:
        returns: (N, S, ...), paths along axis 1.
        level: share of the paths within the band.
        factor: multiplies the distance of both bounds from the median.

    Returns:
        (N, ...) low and high.
    """
    tails = [(1 - level) / 2, 0.5, (1 + level) / 2]
    low, middle, high = np.quantile(returns, tails, axis=1, method="weibull")
    return middle - factor * (middle - low), middle + factor * (high - middle)


def price_band(closes: np.ndarray, level: float, factor: np.ndarray) -> np.ndarray:
    """Bounds of the central band of sampled closes: quantiles at Weibull positions, widened in log prices.

    Args:
        closes: (N, S, ...) positive, paths along axis 1.
        level: share of the paths within the band.
        factor: (N, ...) multiplies the log distance of both bounds from the median; 1 keeps the quantiles.

    Returns:
        (2, N, ...) low and high.
    """
    plain = np.quantile(closes, [(1 - level) / 2, (1 + level) / 2], axis=1, method="weibull")
    if (factor == 1).all():
        return plain
    return np.where(factor == 1, plain, np.exp(band_ends(np.log(closes), level, factor)))


POOL = ""  # the group of all windows
_EXCHANGE = re.compile(r"^([A-Z]{2})\d{4,}$|^\d{4,}\.([A-Z]{2})$")  # SH600000 or 600000.SH


def group_names(
    keys: pd.MultiIndex, trailing: np.ndarray, terciles: tuple[float, ...], known: Collection[str]
) -> np.ndarray:
    """(N,) names of the windows' groups, such as "SH", "SH high volatility"; POOL for windows of no known group.

    Args:
        keys: (N,) MultiIndex (datetime, instrument).
        trailing: (N,) volatility per bar.
        terciles: the two terciles of volatility; empty without volatility groups.
        known: existing groups.
    """
    codes, unique = pd.factorize(keys.get_level_values("instrument").astype(str))
    exchanges = np.array([exchange_of(name) for name in unique], dtype=object)[codes]
    sizes = volatility_names(trailing, terciles)
    found = np.full(len(keys), POOL, dtype=object)
    for candidate in (sizes, exchanges, _joined(exchanges, sizes)):  # the narrowest known group wins
        found = np.where(np.isin(candidate.astype(str), list(known)), candidate, found)
    return found.astype(str)


def exchange_of(instrument: str) -> str:
    """SH for SH600000 and 600000.SH; empty if the name contains no exchange."""
    found = _EXCHANGE.search(instrument)
    return (found[1] or found[2]) if found else ""


def volatility_names(trailing: np.ndarray, terciles: tuple[float, ...]) -> np.ndarray:
    """(N,) "low volatility", "middle volatility" or "high volatility"; empty without terciles or if unknown."""
    if not terciles:
        return np.full(len(trailing), "", dtype=object)
    names = np.array(["low volatility", "middle volatility", "high volatility"], dtype=object)
    found = names[np.searchsorted(terciles, np.nan_to_num(trailing))]
    return np.where(np.isfinite(trailing), found, "")


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array([f"{a} {b}".strip() for a, b in zip(first, second, strict=True)], dtype=object)
