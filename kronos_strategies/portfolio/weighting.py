"""Sizes of the chosen instruments, within what frozen positions and the cash buffer leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kronos_strategies.portfolio.optimization import ScenarioProblem, optimal_weights
from kronos_strategies.portfolio.rules import PortfolioRules

_STEPS, _TOLERANCE = 100, 1e-12  # of Newton's method for risk parity


@dataclass(frozen=True)
class Sizing:
    """Inputs of sizes, over n instruments.

    Attributes:
        columns: (n,) signals by name.
        ranks: (n,) as `rank_instruments` returns.
        chosen: (n,) 1, -1 or 0, as `choose` returns.
        held: (n,) current weights.
        frozen: (n,) bool, positions that cannot be traded.
        correlations: (n, n); None for the correlation that the rules assume.
        scenarios: (n, S, B) joint scenarios, cumulative simple returns, NaN for an instrument without; None where
            the rules need none.
        industries: (n,) number of the industry, -1 for none; None if unknown.
    """

    columns: Mapping[str, np.ndarray]
    ranks: np.ndarray
    chosen: np.ndarray
    held: np.ndarray
    frozen: np.ndarray
    correlations: np.ndarray | None = None
    scenarios: np.ndarray | None = None
    industries: np.ndarray | None = None

    def frozen_on(self, side: int) -> np.ndarray:
        """(n,) bool, frozen positions of a side."""
        return self.frozen & (side * self.held > 0)


def size(sizing: Sizing, rules: PortfolioRules) -> np.ndarray:
    """(n,) weights of the chosen; 0 for all others.

    Raises:
        UnsolvedError: the weighting optimizes over scenarios and finds no optimum.
    """
    whole = 1 - rules.cash_buffer
    sides = (1,) if rules.side == "long" else (1, -1)
    held, frozen = np.abs(sizing.held), sizing.frozen
    budgets = {
        side: max(whole / len(sides) - float(held[sizing.frozen_on(side)].sum()), 0.0) for side in sides
    }
    room = max(whole - float(held[frozen].sum()), 0.0)
    fit = min(1.0, room / max(sum(budgets.values()), 1e-300))
    budgets = {side: budget * fit for side, budget in budgets.items()}
    if rules.uses_scenarios:
        return _optimized(sizing, budgets, rules)
    weights = np.zeros(len(held))
    for side, budget in budgets.items():
        on = sizing.chosen == side
        if on.any():
            sized = _kelly if rules.weighting == "kelly" else _shares
            weights[on] = side * sized(sizing, side, on, budget, rules)
    weights = np.clip(weights, -rules.max_weight, rules.max_weight)
    if rules.weighting == "volatility_target" and weights.any():
        weights *= min(1.0, rules.target_volatility / forecast_volatility(weights, sizing, rules))
    return weights


def _shares(sizing: Sizing, side: int, on: np.ndarray, budget: float, rules: PortfolioRules) -> np.ndarray:
    """(chosen,) sizes that divide the budget of a side, less what its unfilled positions leave in cash."""
    if rules.weighting == "equal":
        share = np.ones(int(on.sum()))
    elif rules.weighting == "score":
        share = _score_share(sizing, side, on, rules)
    else:
        volatility = sizing.columns["volatility"][on]
        share = volatility.min() / volatility
        if rules.weighting == "risk_parity" and sizing.correlations is not None:
            share = share * risk_parity(sizing.correlations[np.ix_(on, on)])
    sizes: np.ndarray = budget * share / share.sum() * _filled(sizing, side, on, rules)
    return sizes


def _filled(sizing: Sizing, side: int, on: np.ndarray, rules: PortfolioRules) -> float:
    """Share of the positions of a side that are filled."""
    filled = int(on.sum())
    positions = rules.positions(int((sizing.ranks < len(on)).sum()))
    return filled / max(positions - int(sizing.frozen_on(side).sum()), filled, 1)


def _optimized(sizing: Sizing, budgets: Mapping[int, float], rules: PortfolioRules) -> np.ndarray:
    """(n,) weights that are optimal over the scenarios; frozen positions that have scenarios count as risks."""
    assert sizing.scenarios is not None
    on = sizing.chosen != 0
    weights = np.zeros(len(on))
    if not on.any():
        return weights
    frozen = sizing.frozen & np.isfinite(sizing.scenarios[:, -1, -1])
    groups, rooms = np.full(len(on), -1), np.empty(0)
    if sizing.industries is not None and rules.max_industry_weight < 1:
        groups, known = sizing.industries, sizing.frozen & (sizing.industries >= 0)
        fixed = np.bincount(groups[known], np.abs(sizing.held)[known], int(groups.max(initial=-1)) + 1)
        rooms = np.maximum(rules.max_industry_weight - fixed, 0.0)
    names = np.concatenate([np.flatnonzero(on), np.flatnonzero(frozen)])
    problem = ScenarioProblem(
        scenarios=sizing.scenarios[names].transpose(1, 2, 0),
        side=sizing.chosen[on],
        budgets={
            side: budget * _filled(sizing, side, sizing.chosen == side, rules)
            for side, budget in budgets.items()
        },
        held=sizing.held[on],
        frozen=sizing.held[frozen],
        groups=groups[on],
        rooms=rooms,
    )
    weights[on] = optimal_weights(problem, rules)
    return weights


def _score_share(sizing: Sizing, side: int, on: np.ndarray, rules: PortfolioRules) -> np.ndarray:
    """(chosen,) distances from the median of all ranked instruments; 0 on its wrong side, equal if all are 0."""
    score = sizing.columns[rules.rank_by]
    median = np.median(score[sizing.ranks < len(score)])
    distance = np.maximum(side * (score[on] - median), 0.0)
    return distance / distance.max() if distance.max() > 0 else np.ones(int(on.sum()))


def _kelly(sizing: Sizing, side: int, on: np.ndarray, budget: float, rules: PortfolioRules) -> np.ndarray:
    """(chosen,) fractional Kelly sizes, lowered together to fit the budget."""
    ratio, deviation = sizing.columns["risk_adjusted"][on], sizing.columns["deviation"][on]
    scale = rules.kelly_fraction * (1 - rules.shrinkage)
    sizes = np.maximum(side * scale * ratio / deviation, 0.0)
    return sizes * min(1.0, budget / max(float(sizes.sum()), 1e-300))


def risk_parity(correlations: np.ndarray) -> np.ndarray:
    """(k,) positive y with y_i * (R y)_i equal for all i: y / volatility are weights of equal risk contributions.

    The minimum of y'Ry / 2 - sum(log y), by Newton's method with the damping of Spinu (2013).

    Args:
        correlations: (k, k) R.

    Raises:
        ValueError: R is not positive semidefinite.
    """
    lowest = float(np.linalg.eigvalsh(correlations)[0])
    if lowest < -1e-8:
        raise ValueError(
            f"The correlations are not positive semidefinite, the lowest eigenvalue is {lowest:.2g}. Shrink them, "
            "e.g. halfway to a common correlation."
        )
    count = len(correlations)
    y = np.full(count, np.sqrt(count / max(float(correlations.sum()), 1.0)))  # y'Ry is `count` at the minimum
    for _ in range(_STEPS):
        gradient = correlations @ y - 1 / y
        step = np.linalg.solve(correlations + np.diag(1 / np.square(y)), gradient)
        decrement = float(np.sqrt(max(gradient @ step, 0.0)))
        if decrement < _TOLERANCE:
            break
        y = y - step / (1 + decrement if decrement > 0.3 else 1.0)
    return y


def forecast_volatility(weights: np.ndarray, sizing: Sizing, rules: PortfolioRules) -> float:
    """Forecast volatility per year of a portfolio; frozen positions are left out.

    With x = weight * volatility per bar and correlations R, the variance of a bar is x'Rx; with one common
    correlation c it is c * sum(x)**2 + (1 - c) * sum(x**2). Bars are taken as uncorrelated in time.
    """
    on = weights != 0
    risk = weights[on] * sizing.columns["volatility"][on]
    if sizing.correlations is not None:
        variance = float(risk @ sizing.correlations[np.ix_(on, on)] @ risk)
    else:
        variance = rules.correlation * risk.sum() ** 2 + (1 - rules.correlation) * np.square(risk).sum()
    # A long-short portfolio whose sides cancel under correlation 1 has no volatility to lower.
    return max(float(np.sqrt(max(variance, 0.0) * rules.bars_per_year)), 1e-300)
