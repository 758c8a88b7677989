"""Valid candles of sampled paths: built from the candles of a window, or from quantiles of the log price.

A candle is four log prices, open, high, low and close, relative to the close before it. Multiplied by a positive
number, or shifted, it stays valid. Volume and amount are those of the past bar that a candle is taken from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch

from kronos.bars import CLOSE, FEATURES, PRICES
from kronos.windows import Windows

OPEN, HIGH, LOW = (PRICES.index(name) for name in ("open", "high", "low"))
VOLUME, AMOUNT = FEATURES.index("volume"), FEATURES.index("amount")
MAX_RATIO = 4.0  # cap on the volatility of a step over that of the past bar that it takes its candle from
LEAST = 2.0**-26  # uniforms are kept this far from 0 and 1, whose quantiles are infinite


@dataclass(frozen=True)
class PastCandles:
    """The K bars of N windows that have a bar before them.

    Attributes:
        moves: (N, K, 4) float64 candles; 0 where a price is not positive.
        usable: (N, K) bool, candles whose prices, and the close before, are positive.
        volume: (N, K) units traded.
        amount: (N, K) amount over the mean of the four prices.
        last_close: (N,) float64, positive.
    """

    moves: np.ndarray
    usable: np.ndarray
    volume: np.ndarray
    amount: np.ndarray
    last_close: np.ndarray

    @classmethod
    def read(cls, windows: Windows) -> PastCandles:
        """The candles of windows that have the same number of bars."""
        values = windows.values.astype(np.float64)  # (N, T, 6)
        prices = values[..., : len(PRICES)]
        positive = np.asarray((prices > 0).all(axis=-1))
        usable = positive[:, 1:] & (values[:, :-1, CLOSE] > 0)
        logs = np.log(np.where(prices > 0, prices, 1.0))
        moves = np.where(usable[..., None], logs[:, 1:] - logs[:, :-1, [CLOSE]], 0.0)
        level = np.where(positive, prices.mean(axis=-1), np.inf)
        amount = values[..., AMOUNT] / level
        return cls(moves, usable, values[:, 1:, VOLUME], amount[:, 1:], values[:, -1, CLOSE])

    def __getitem__(self, rows: np.ndarray) -> PastCandles:
        """A subset of the windows."""
        return PastCandles(*(getattr(self, each.name)[rows] for each in fields(self)))

    @property
    def returns(self) -> np.ndarray:
        """(N, K) log returns from close to close; 0 where unusable."""
        return self.moves[..., CLOSE]

    @property
    def mean(self) -> np.ndarray:
        """(N,) mean log return of usable bars."""
        return self.returns.sum(axis=1) / np.maximum(self.usable.sum(axis=1), 1)

    @property
    def variance(self) -> np.ndarray:
        """(N,) variance of the log returns of usable bars."""
        apart = np.where(self.usable, self.returns - self.mean[:, None], 0.0)
        return (apart**2).sum(axis=1) / np.maximum(self.usable.sum(axis=1), 1)


def equal_lengths(windows: Windows) -> Iterator[np.ndarray]:
    """Rows of windows that have the same number of bars, in groups."""
    for length in np.unique(windows.lengths):
        yield np.flatnonzero(windows.lengths == length)


def draw_bars(order_by: np.ndarray, usable: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Past bars by inverse CDF along `order_by`, so that equal uniforms give bars of equal rank in all windows.

    Args:
        order_by: (N, K), e.g. the bars' returns.
        usable: (N, K) bool, bars to draw from; without one the first bar is drawn.
        uniforms: (N, ...) in [0, 1).

    Returns:
        (N, ...) int, positions in K; each usable bar of a window is equally likely.
    """
    order = np.argsort(np.where(usable, order_by, np.inf), axis=1, kind="stable")
    counts = usable.sum(axis=1).reshape(-1, *[1] * (uniforms.ndim - 1))
    ranks = (uniforms.astype(np.float64) * counts).astype(np.int64)
    return np.take_along_axis(order, ranks.reshape(len(ranks), -1), axis=1).reshape(uniforms.shape)


def take_bars(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(N, K, ...) values of past bars at (N, S, H) positions -> (N, S, H, ...)."""
    return values[np.arange(len(values))[:, None, None], chosen]


def shape_candles(returns: np.ndarray, candles: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Candles with the given close and the gap and wicks of past ones.

    The open is the past gap, and the high and low are the past distances from the higher and lower of open and
    close, all times `factor`.

    Args:
        returns: (N, S, H) log returns from close to close.
        candles: (N, S, H, 4) past candles.
        factor: broadcasts to (N, S, H).
    """
    gap, close = candles[..., OPEN], candles[..., CLOSE]
    above = np.maximum(candles[..., HIGH] - np.maximum(gap, close), 0.0) * factor
    below = np.maximum(np.minimum(gap, close) - candles[..., LOW], 0.0) * factor
    opened = gap * factor
    high, low = np.maximum(opened, returns) + above, np.minimum(opened, returns) - below
    return np.stack([opened, high, low, returns], axis=-1)


def candle_paths(past: PastCandles, moves: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(N, S, H, 6) float32 paths that chain candles from the last close on.

    Args:
        past: candles of the windows.
        moves: (N, S, H, 4) candles of the paths, log prices relative to the close before each.
        chosen: (N, S, H) the past bars that volume and amount are taken from.
    """
    closes = moves[..., CLOSE].cumsum(axis=2)
    before = closes - moves[..., CLOSE]
    paths = np.empty((*chosen.shape, len(FEATURES)), np.float32)
    start = np.log(past.last_close)[:, None, None, None]
    prices = np.exp(np.clip(start + before[..., None] + moves, -80.0, 80.0))  # within float32
    paths[..., : len(PRICES)] = prices
    paths[..., VOLUME] = take_bars(past.volume, chosen)
    amount = take_bars(past.amount, chosen) * prices.mean(axis=-1)
    paths[..., AMOUNT] = np.minimum(amount, np.finfo(np.float32).max)
    return paths


def paths_from_quantiles(
    windows: Windows, quantiles: np.ndarray, levels: np.ndarray, uniforms: np.ndarray
) -> np.ndarray:
    """Paths of candles from quantiles of the log price at each step.

    At each step the close has the given quantiles: between two levels, and beyond the outer ones, the log price is
    linear in the quantile of the normal distribution. Quantiles say nothing about how steps depend on each other;
    the ranks of a path are assumed to move like those of a random walk: a Gaussian copula with the correlation
    sqrt(g / h) between the steps g < h. Each step takes the gap, wicks, volume and amount of the window's bar whose
    return has the rank of the step's random number, scaled by the width of the quantiles over that of the
    window's returns.

    Args:
        windows: N windows.
        quantiles: (N, H, Q) of the log of close over last close; sorted by level if they cross.
        levels: (Q,) ascending, between 0 and 1, at least two.
        uniforms: (N, S, H, 2) in [0, 1), see `kronos.sampling.sobol_uniforms`.

    Returns:
        (N, S, H, 6) float32 paths of valid candles, in the bars' own units.

    Raises:
        ValueError: levels or shapes do not match, or a quantile is not finite.
    """
    levels = _check_quantiles(windows, quantiles, levels)
    quantiles = np.sort(np.asarray(quantiles, np.float64), axis=-1)
    normal = _normal_quantile(uniforms[..., 0])  # (N, S, H)
    steps = np.arange(1, windows.horizon + 1)
    closes = _interpolate(quantiles, _normal_quantile(levels), normal.cumsum(axis=2) / np.sqrt(steps))
    returns = np.diff(closes, axis=2, prepend=0.0)
    # The width between the deciles, per step of a random walk.
    tails = _interpolate(
        quantiles, _normal_quantile(levels), _normal_quantile(np.array([0.1, 0.9]))[None, :, None]
    )
    width = (tails[:, 1] - tails[:, 0]) / np.sqrt(steps)  # (N, H)
    paths = np.empty((*uniforms.shape[:3], len(FEATURES)), np.float32)
    for rows in equal_lengths(windows):
        past = PastCandles.read(windows[rows])
        chosen = draw_bars(past.returns, past.usable, uniforms[rows, ..., 0])
        span = np.array(
            [np.ptp(np.quantile(each[used], [0.1, 0.9])) if used.any() else 0.0
             for each, used in zip(past.returns, past.usable, strict=True)]
        )[:, None]  # fmt: skip
        factor = np.divide(width[rows], span, out=np.ones_like(width[rows]), where=span > 0)
        factor = factor.clip(1 / MAX_RATIO, MAX_RATIO)[:, None]
        moves = shape_candles(returns[rows], take_bars(past.moves, chosen), factor)
        paths[rows] = candle_paths(past, moves, chosen)
    return paths


def _check_quantiles(windows: Windows, quantiles: np.ndarray, levels: np.ndarray) -> np.ndarray:
    levels = np.asarray(levels, np.float64)
    if (
        levels.ndim != 1
        or len(levels) < 2
        or not ((levels > 0) & (levels < 1)).all()
        or (np.diff(levels) <= 0).any()
    ):
        raise ValueError(
            f"levels={levels.tolist()} are not quantile levels. Pass at least two between 0 and 1, ascending."
        )
    if np.shape(quantiles) != (expected := (len(windows), windows.horizon, len(levels))):
        raise ValueError(
            f"quantiles have the shape {np.shape(quantiles)}, not {expected}, which is (N, H, Q)."
        )
    if not (finite := np.isfinite(quantiles).all(axis=(1, 2))).all():
        where = windows.index[int(np.argmin(finite))]
        raise ValueError(
            f"The quantiles of {where} are not finite. Check the weights of the model that gave them."
        )
    return levels


def _normal_quantile(uniforms: np.ndarray) -> np.ndarray:
    inside = np.asarray(uniforms, np.float64).clip(LEAST, 1 - LEAST)
    found: np.ndarray = torch.special.ndtri(torch.from_numpy(inside)).numpy()
    return found


def _interpolate(values: np.ndarray, grid: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(N, H, Q) values on a grid (Q,), at points that broadcast to (N, S, H); linear, also beyond the grid."""
    at = np.broadcast_to(at, (len(values), at.shape[1], values.shape[1]))
    left = np.clip(np.searchsorted(grid, at) - 1, 0, len(grid) - 2)
    weight = (at - grid[left]) / (grid[left + 1] - grid[left])
    rows, steps = np.arange(len(values))[:, None, None], np.arange(values.shape[1])
    low, high = values[rows, steps, left], values[rows, steps, left + 1]
    return low + weight * (high - low)
