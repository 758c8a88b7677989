"""Candles: invalid sampled bars, how many there are, and their repair. Knows no torch.

The tokenizer decodes the six features of a bar one by one, so that a sampled close may lie above the high of its
bar, and a small volume below zero. `repair_paths` does what `repair_bars` does to real bars: it stretches high and
low around open and close, which are the prices that returns are measured on and stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kronos.bars import CLOSE, PRICES

Candles = Literal["valid", "raw"]
FLOOR = 1e-3  # of the last close: where a sampled price at or below zero is lifted to
_OPEN, _HIGH, _LOW = (PRICES.index(name) for name in ("open", "high", "low"))
_ROUNDING = 1e-6  # relative: prices are float32


@dataclass(frozen=True)
class PriceLimits:
    """How far prices may move from the close of the bar before, by an exchange's rule.

    Attributes:
        rate: share of the close before, such as .1.
        tick: prices that limits are rounded to, in the bars' own units; None where prices are adjusted, since ticks
            are those of the price on the screen.

    Raises:
        ValueError: a rate outside (0, 1), or a tick that is not positive.
    """

    rate: float
    tick: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(
                f"rate={self.rate} is not a price limit. Pass a share of the last close, such as 0.1."
            )
        if self.tick is not None and not self.tick > 0:
            raise ValueError(f"tick={self.tick} is not a price step. Pass a positive number, or None.")


CHINA = {
    "star and ChiNext": PriceLimits(0.2),
    "main board": PriceLimits(0.1),
    "special treatment": PriceLimits(0.05),
}
_TWENTY = re.compile(r"(SH)?(688|689)\d{3}|(SZ)?(300|301)\d{3}")


def china_limits(instrument: str) -> PriceLimits:
    """Limits of a Chinese share by its code: 20 % on STAR and ChiNext (688, 689, 300, 301), else 10 %.

    Codes do not tell special treatment (5 %), nor that ChiNext had 10 % until 2020-08-23.
    """
    return CHINA["star and ChiNext" if _TWENTY.match(instrument.upper()) else "main board"]


def repair_paths(paths: np.ndarray, last_close: np.ndarray) -> np.ndarray:
    """Valid paths: 0 < low <= open, close <= high, and volume and amount of 0 or more.

    Prices at or below zero are lifted to a thousandth of the last close, high and low are stretched around open and
    close, a negative volume or amount becomes 0. Whatever is a bar already stays as it is.

    Args:
        paths: (N, S, H, 6) float32.
        last_close: (N,) positive.
    """
    repaired = paths.copy()
    prices = repaired[..., : len(PRICES)]
    lowest = (FLOOR * np.asarray(last_close, np.float64)).astype(np.float32)[:, None, None, None]
    np.maximum(prices, lowest, out=prices, where=np.broadcast_to(lowest > 0, prices.shape))
    high, low = prices.max(axis=-1), prices.min(axis=-1)
    prices[..., _HIGH], prices[..., _LOW] = high, low
    np.maximum(repaired[..., len(PRICES) :], 0, out=repaired[..., len(PRICES) :])
    return repaired


def limit_paths(
    paths: np.ndarray, last_close: np.ndarray, rates: np.ndarray, ticks: np.ndarray
) -> np.ndarray:
    """Paths whose prices keep within limits of the close of the bar before, step after step.

    A path that was sampled beyond is clipped, and comes up to its sampled price over the next bars, as a share that
    is limit up for days does.

    Args:
        paths: (N, S, H, 6) float32.
        last_close: (N,) the close before the first step.
        rates: (N,) shares of the close before.
        ticks: (N,) that limits are rounded to, half up; NaN for none.
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
    """Counts of invalid sampled bars, before any repair.

    Attributes:
        bars: sampled.
        paths: sampled.
        outside: bars with open or close outside [low, high].
        paths_outside: paths with such a bar.
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
        """Each count over all bars; that of paths over all paths. NaN without any."""
        return {
            name: count / total if (total := self.paths if name == "paths_outside" else self.bars) else np.nan
            for name, count in vars(self).items()
            if name not in ("bars", "paths")
        }


def count_violations(paths: np.ndarray) -> Violations:
    """Of (N, S, H, 6) sampled bars."""
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
