"""How likely the choice of the best of many backtests is luck: combinatorially symmetric cross-validation (CSCV).

Bailey, Borwein, Lopez de Prado and Zhu (2017), "The probability of backtest overfitting".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

BLOCKS = 16  # 12,870 splits
MIN_BLOCK_BARS = 8  # fewer bars, fewer blocks
_AT_A_TIME = 2**20  # ratios of splits x settings that are in memory together


@dataclass(frozen=True)
class OverfittingEvaluation:
    """What the best of several settings on one half of the bars is worth on the other half, over all splits.

    Attributes:
        pbo: probability of backtest overfitting: share of splits in which the setting with the best Sharpe ratio on
            one half is below the median of all settings on the other; on the median counts half. Settings without
            any difference in skill have .5. NaN for fewer than two different settings or four blocks.
        prob_loss: share of splits in which that setting loses on the other half.
        in_sample: (splits,) Sharpe ratio per bar of the best setting on the half that chose it.
        out_of_sample: (splits,) its ratio on the other half.
        relative_rank: (splits,) its rank on the other half among all settings, in (0, 1), 1 for the best: the rank
            from 1 to N, the mean one among equals, over N + 1.
        blocks: number of blocks that the bars are cut into; half of them choose.
        settings: number of different settings.
    """

    pbo: float
    prob_loss: float
    in_sample: np.ndarray
    out_of_sample: np.ndarray
    relative_rank: np.ndarray
    blocks: int
    settings: int

    @property
    def logits(self) -> np.ndarray:
        """(splits,) log of the odds of `relative_rank`, below 0 for a setting below the median."""
        return np.log(self.relative_rank / (1 - self.relative_rank))


def evaluate_overfitting(returns: pd.DataFrame, blocks: int = BLOCKS) -> OverfittingEvaluation:
    """Probability that choosing the setting with the best Sharpe ratio overfits (CSCV).

    The bars are cut into consecutive blocks of equal length, to one bar. Each half of the blocks chooses the best
    setting, and the other half tests it; blocks stay whole, so that serial dependence does too. A setting that does
    not vary on a half has a ratio of 0 there. Settings whose returns are all equal count once, since a copy is not
    another candidate.

    Args:
        returns: bars x settings, simple returns on the same bars, without gaps.
        blocks: even number of blocks; lowered to what blocks of at least 8 bars allow.

    Raises:
        ValueError: the number of blocks is odd or below 2, or a return is missing or infinite.
    """
    if blocks < 2 or blocks % 2:
        raise ValueError(
            f"blocks={blocks} cannot be halved. Pass an even number of at least 2, such as {BLOCKS}."
        )
    values = returns.to_numpy(np.float64)
    if not np.isfinite(values).all():
        bar = returns.index[int(np.argmin(np.isfinite(values).all(axis=1)))]
        raise ValueError(
            f"A return of {bar} is missing or infinite. Pass returns of all settings on the same bars."
        )
    values = np.unique(values, axis=1)
    blocks = min(blocks, len(values) // MIN_BLOCK_BARS // 2 * 2)
    settings = values.shape[1]
    if settings < 2 or blocks < 4:
        nothing = np.empty(0)
        return OverfittingEvaluation(np.nan, np.nan, nothing, nothing, nothing, blocks, settings)
    halves = list(_halves(_moments(values, blocks), blocks))
    chosen, tested, ranks = (np.concatenate(each) for each in zip(*halves, strict=True))
    below = (ranks < 0.5) + 0.5 * (ranks == 0.5)
    return OverfittingEvaluation(
        float(below.mean()), float((tested < 0).mean()), chosen, tested, ranks, blocks, settings
    )


def _moments(values: np.ndarray, blocks: int) -> np.ndarray:
    """(3, blocks, settings) number of bars, sum of returns, and sum of squares about the mean of all bars."""
    centered = values - values.mean(axis=0)
    parts = np.array_split(np.arange(len(values)), blocks)
    return np.stack(
        [
            np.stack(
                [np.full(values.shape[1], len(part)), values[part].sum(axis=0), _squares(centered[part])]
            )
            for part in parts
        ],
        axis=1,
    )


def _squares(values: np.ndarray) -> np.ndarray:
    total: np.ndarray = np.square(values).sum(axis=0)
    return total


def _halves(moments: np.ndarray, blocks: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For some splits at a time: ratio of the best on its half, its ratio on the other, its relative rank there."""
    settings = moments.shape[2]
    total = moments.sum(axis=1)
    mean = total[1] / total[0]
    splits = np.zeros((math.comb(blocks, blocks // 2), blocks))
    for row, half in enumerate(combinations(range(blocks), blocks // 2)):
        splits[row, list(half)] = 1.0
    step = max(1, _AT_A_TIME // settings)
    for start in range(0, len(splits), step):
        inside = np.einsum("sb,mbn->msn", splits[start : start + step], moments, optimize=True)
        ratio, other = _ratios(inside, mean), _ratios(total[:, None] - inside, mean)
        best = ratio.argmax(axis=1)[:, None]
        tested = np.take_along_axis(other, best, axis=1)
        rank = (other < tested).sum(axis=1) + ((other == tested).sum(axis=1) + 1) / 2
        yield np.take_along_axis(ratio, best, axis=1)[:, 0], tested[:, 0], rank / (settings + 1)


def _ratios(moments: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(splits, settings) mean / standard deviation (ddof 1) of halves, from `_moments`; 0 where constant."""
    count, total, squares = moments
    own = total / count
    variance = (squares - count * np.square(own - mean)) / (count - 1)
    varies = variance > 1e-18 * np.maximum(squares / count, 1e-300)
    return np.where(varies, own / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
