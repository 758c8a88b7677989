"""Constraints on target weights: industry cap, no-trade band, participation in volume, turnover."""

from __future__ import annotations

import numpy as np

from kronos_strategies.portfolio.rules import PortfolioRules


def cap_industries(weights: np.ndarray, frozen: np.ndarray, industries: np.ndarray, cap: float) -> np.ndarray:
    """(n,) weights with those of each industry lowered in proportion; frozen ones count but stay.

    Args:
        weights: (n,) weights, frozen ones included.
        frozen: (n,) bool.
        industries: (n,) number of the industry; -1 for none, which is not capped.
        cap: largest sum of absolute weights.
    """
    known = industries >= 0
    count = int(industries.max(initial=-1)) + 1
    if not count:
        return weights
    gross = np.abs(weights)
    fixed = np.bincount(industries[known], np.where(frozen, gross, 0.0)[known], count)
    free = np.bincount(industries[known], np.where(frozen, 0.0, gross)[known], count)
    factor = np.minimum(1.0, np.maximum(cap - fixed, 0.0) / np.maximum(free, 1e-300))
    return np.where(known & ~frozen, weights * factor[industries], weights)


def apply_no_trade_band(
    target: np.ndarray, held: np.ndarray, frozen: np.ndarray, rules: PortfolioRules
) -> np.ndarray:
    """(n,) targets, or the current weight where the change is within the band and cash suffices.

    If weights kept by the band leave too little cash, those furthest above their target are traded until it
    suffices.
    """
    kept = ~frozen & (held * target > 0) & (np.abs(target - held) < rules.no_trade_band)
    weights = np.where(kept, held, target)
    excess = np.abs(weights).sum() - (1 - rules.cash_buffer)
    above = np.where(kept, np.abs(held) - np.abs(target), 0.0)
    if excess > 1e-12 and (above > 0).any():
        order = np.argsort(-above, kind="stable")
        order = order[above[order] > 0]
        enough = int(np.searchsorted(np.cumsum(above[order]), excess)) + 1
        weights[order[:enough]] = target[order[:enough]]
    return weights


def limit_participation(
    weights: np.ndarray, held: np.ndarray, largest: np.ndarray, cash_buffer: float
) -> np.ndarray:
    """(n,) weights whose changes are within `largest`; purchases are lowered to what limited sales pay for.

    Args:
        weights: (n,) weights.
        held: (n,) current weights.
        largest: (n,) largest absolute change of each.
        cash_buffer: share of equity that is not invested.
    """
    limited = held + np.clip(weights - held, -largest, largest)
    base = np.where(held * limited > 0, np.sign(limited) * np.minimum(np.abs(held), np.abs(limited)), 0.0)
    added = np.abs(limited - base).sum()
    room = max(1 - cash_buffer - float(np.abs(base).sum()), 0.0)
    return base + (limited - base) * min(1.0, room / max(float(added), 1e-300))


def limit_turnover(weights: np.ndarray, held: np.ndarray, largest: float) -> np.ndarray:
    """(n,) weights moved from `held` toward `weights` as far as the sum of absolute changes allows.

    Reductions and additions get the same share of what they want. Each side completes its largest trades first, so
    that a limited portfolio does not fill with remainders of positions.
    """
    change = np.abs(weights - held)
    total = float(change.sum())
    if total <= largest:
        return weights
    reduction = np.where(held * weights > 0, np.maximum(np.abs(held) - np.abs(weights), 0.0), np.abs(held))
    reduction = np.minimum(reduction, change)
    share = largest / total
    moved = sum(_largest_first(each, share * float(each.sum())) for each in (reduction, change - reduction))
    return np.where(moved >= change, weights, held + np.sign(weights - held) * moved)


def _largest_first(sizes: np.ndarray, budget: float) -> np.ndarray:
    """(n,) parts of `sizes` that add up to the budget, the largest of them complete."""
    order = np.argsort(-sizes, kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    parts = np.zeros(len(sizes))
    parts[order] = np.clip(budget - before, 0.0, sizes[order])
    return parts
