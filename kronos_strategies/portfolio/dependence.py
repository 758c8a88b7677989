"""Dependence between instruments from their past closes: correlations, and joint scenarios by Schaake shuffle.

Sampled paths of different instruments are independent of each other. The Schaake shuffle (Clark et al. 2004) makes
joint scenarios of them: the paths of each instrument are reordered so that their ranks are those of its returns in
past windows, which are the same windows for all instruments. The paths of an instrument stay what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np

MIN_WINDOWS = 20  # past windows without which there is no dependence to take over
SHRINKAGE = 0.5  # of estimated correlations toward the one that the rules assume
DECIMALS = 6  # of past returns: smaller differences are rounding errors of adjusted prices, and count as ties


class UnsolvedError(RuntimeError):
    """An optimization has no result, for the reason that the message gives; the weights stay as they are."""


def past_correlations(closes: np.ndarray, assumed: float) -> np.ndarray:
    """(n, n) correlations of the log returns of (T, n) closes, shrunk halfway to `assumed`.

    A bar that an instrument lacks counts as a return of 0, as does every bar before its first.

    Args:
        closes: adjusted closes up to the date of the decision; NaN without a bar.
        assumed: correlation of any two instruments.
    """
    moves = np.nan_to_num(np.diff(np.log(_forward_filled(closes)), axis=0))
    moves = moves - moves.mean(axis=0) if len(moves) else np.zeros((1, closes.shape[1]))
    moves = moves / np.maximum(np.sqrt(np.square(moves).sum(axis=0)), 1e-300)
    matrix: np.ndarray = (1 - SHRINKAGE) * (moves.T @ moves) + SHRINKAGE * assumed
    np.fill_diagonal(matrix, 1.0)
    return matrix


def joint_scenarios(paths: np.ndarray, closes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Reorder sampled paths to the ranks of past joint windows.

    The windows have as many bars as the paths. There is one for each path: they are spread evenly over the past,
    and overlap or repeat where it is short. The path with the lowest return at its end goes to the window with the
    lowest return, and so on.

    Ties between windows are broken by an order that depends on the name of the instrument alone. A window that an
    instrument lacks, e.g. from before its listing, gets the mean of the standardized returns of the others, so that
    the instrument moves with its market there. None of this depends on which other instruments are given, but for
    that mean.

    Args:
        paths: (n, S, B) cumulative simple returns of independent paths; NaN for an instrument without paths.
        closes: (T, n) adjusted closes of bars before the date of the paths, ascending; NaN without a bar.
        names: (n,) instruments.

    Returns:
        (n, S, B) the same paths: path s of all instruments is one scenario.

    Raises:
        UnsolvedError: the past has fewer than MIN_WINDOWS windows.
    """
    samples, bars = paths.shape[1:]
    standardized = _standardized(window_returns(closes, bars))
    count = len(standardized)
    if count < MIN_WINDOWS:
        raise UnsolvedError(
            f"joint scenarios need {MIN_WINDOWS} past windows of {bars} bars, and {len(closes)} bars before the "
            f"date have {count}"
        )
    chosen = np.arange(samples) % count
    if samples <= count:
        chosen = np.linspace(0, count - 1, samples).round().astype(int)
    values = standardized[chosen].T  # (n, S)
    ties = np.stack([_tie_order(str(name), samples) for name in names])
    ranks = np.argsort(np.lexsort((ties, values), axis=1), axis=1)
    order = np.argsort(paths[:, :, -1], axis=1, kind="stable")
    rows: np.ndarray = np.take_along_axis(order, ranks, axis=1)
    return np.take_along_axis(paths, rows[:, :, None], axis=1)


def window_returns(closes: np.ndarray, bars: int) -> np.ndarray:
    """(T - bars, n) simple returns of all windows of `bars` bars; NaN where a close at either end is missing."""
    if len(closes) <= bars:
        return np.empty((0, closes.shape[1]))
    moves: np.ndarray = np.round(closes[bars:] / closes[:-bars] - 1, DECIMALS)
    return moves


def _standardized(returns: np.ndarray) -> np.ndarray:
    """(W, n) returns in standard deviations of each instrument, missing ones filled with the mean of the others."""
    known = np.isfinite(returns)
    count = np.maximum(known.sum(axis=0), 1)
    centered = np.where(known, returns - np.where(known, returns, 0.0).sum(axis=0) / count, 0.0)
    deviation = np.sqrt(np.square(centered).sum(axis=0) / count)
    known &= deviation > 0
    scores = np.where(known, centered / np.where(deviation > 0, deviation, 1.0), 0.0)
    market = scores.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.round(np.where(known, scores, market[:, None]), DECIMALS)


def _forward_filled(closes: np.ndarray) -> np.ndarray:
    """(T, n) last known close on each bar."""
    last = np.maximum.accumulate(np.where(np.isfinite(closes), np.arange(len(closes))[:, None], -1), axis=0)
    filled = closes[np.maximum(last, 0), np.arange(closes.shape[1])]
    return np.where(last >= 0, filled, np.nan)


@lru_cache(maxsize=16_384)
def _tie_order(name: str, samples: int) -> np.ndarray:
    """(S,) permutation by which equal returns of an instrument are ordered."""
    return np.random.default_rng(crc32(name.encode())).permutation(samples)
