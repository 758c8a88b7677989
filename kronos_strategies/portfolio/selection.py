"""Ranks, and which instruments are held: top k with rank buffer, limited replacement, quantiles, long and short."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kronos_strategies.portfolio.rules import PortfolioRules


def rank_instruments(
    columns: Mapping[str, np.ndarray], rules: PortfolioRules, trades: np.ndarray
) -> np.ndarray:
    """(n,) rank, 0 for the best; n for instruments that cannot be bought.

    Ties are broken by expected_return / volatility where the signals have both, then by the order of instruments.

    Args:
        columns: (n,) signals by name.
        rules: rules.
        trades: (n,) bool, instruments that can be traded.
    """
    score = columns[rules.rank_by]
    able = trades & np.isfinite(score)
    for name in rules.columns:
        able &= np.isfinite(columns[name])
        if name != "risk_adjusted":
            able &= columns[name] > 0
    ratio = np.zeros(len(score))
    if {"expected_return", "volatility"} <= set(columns):
        with np.errstate(all="ignore"):
            ratio = np.nan_to_num(columns["expected_return"] / columns["volatility"], nan=-np.inf)
    best_first = np.lexsort((-ratio, -np.where(able, score, 0.0), ~able))  # stable
    ranks = np.full(len(score), len(score))
    ranks[best_first[: able.sum()]] = np.arange(able.sum())
    return ranks


def choose(ranks: np.ndarray, held: np.ndarray, frozen: np.ndarray, rules: PortfolioRules) -> np.ndarray:
    """(n,) 1 for a long position, -1 for a short one, 0 for the others, including frozen ones.

    Args:
        ranks: (n,) as `rank_instruments` returns.
        held: (n,) current weights.
        frozen: (n,) bool, positions that cannot be traded; each takes a slot of its side.
        rules: rules.
    """
    able = ranks < len(ranks)
    count = int(able.sum())
    most = count if rules.side == "long" else count // 2  # so that no instrument is both best and worst
    positions = rules.positions(count)
    slots = [min(max(positions - int((frozen & (sign * held > 0)).sum()), 0), most) for sign in (1, -1)]
    long, best = _choose_side(ranks, able, held > 0, slots[0], rules)
    if rules.side == "long":
        return long.astype(int)
    from_worst = np.where(able, count - 1 - ranks, len(ranks))
    short, worst = _choose_side(from_worst, able, held < 0, slots[1], rules)
    return (long & ~worst).astype(int) - (short & ~best).astype(int)


def _choose_side(
    ranks: np.ndarray, able: np.ndarray, held: np.ndarray, slots: int, rules: PortfolioRules
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool, the instruments of a side, and those of them that are among its best `slots`."""
    best, own = able & (ranks < slots), able & held
    stays = own & (ranks < slots + rules.rank_buffer)
    if rules.n_drop:
        leaving = np.flatnonzero(own & ~stays)
        leaving = leaving[np.argsort(-ranks[leaving])][: rules.n_drop]
        stays = own.copy()
        stays[leaving] = False
        entering = np.flatnonzero(best & ~own)
        # A side that holds too many, because a sale did not trade, shrinks: fewer enter than leave.
        free = max(len(leaving) + slots - int(own.sum()), 0)
        best = best & own
        best[entering[np.argsort(ranks[entering])][:free]] = True
    return best | stays, best
