"""Weights that are optimal over joint scenarios: CVaR, CVaR of the drawdown, variance. Needs the `portfolio` extra.

With R[s, b] the return of the portfolio in scenario s until bar b, B the last bar and S scenarios:

- CVaR is the mean of -R[s, B] over the worst `cvar_tail` of the scenarios (Rockafellar and Uryasev 2000).
- The CVaR of the drawdown is the mean over the worst `cvar_tail` of the largest fall of 1 + R[s, b] below its
  highest value so far, as a share of the equity at the start.
- The variance is that of R[s, B], with the covariance of the instruments shrunk by Ledoit and Wolf (2004).

All of them are over the horizon of the paths, without rebalancing in between.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kronos.utils import MissingExtra
from kronos_strategies.portfolio.dependence import UnsolvedError
from kronos_strategies.portfolio.rules import PortfolioRules

if TYPE_CHECKING:
    import cvxpy as cp

LINEAR, QUADRATIC = "HIGHS", "CLARABEL"  # solvers
DUST = 1e-6  # weights up to this are what an interior point leaves of 0
MARGIN = 1e-9  # of the sums, so that rounding does not make caps infeasible


@dataclass(frozen=True)
class ScenarioProblem:
    """k instruments to weight, and what is held besides.

    Attributes:
        scenarios: (S, B, k + f) cumulative simple returns, those of f frozen positions last.
        side: (k,) 1 for a long position, -1 for a short one.
        budgets: sum of the absolute weights of each side, as far as the caps allow, by 1 and -1.
        held: (k,) current weights.
        frozen: (f,) weights that stay.
        groups: (k,) number of the industry, -1 for none.
        rooms: (industries,) largest sum of absolute weights of each.
    """

    scenarios: np.ndarray
    side: np.ndarray
    budgets: dict[int, float]
    held: np.ndarray
    frozen: np.ndarray
    groups: np.ndarray
    rooms: np.ndarray


def optimal_weights(problem: ScenarioProblem, rules: PortfolioRules) -> np.ndarray:
    """(k,) weights with the sums of the budgets, or less where the caps do not allow more.

    Raises:
        UnsolvedError: a scenario is not finite, or the solver finds no optimum.
        MissingExtra: a package of the extra is not installed.
    """
    cp = _cvxpy()
    if not np.isfinite(problem.scenarios).all():
        raise UnsolvedError("a scenario has returns that are not finite")
    sizes = cp.Variable(len(problem.side), bounds=[0, rules.max_weight])
    weights = cp.multiply(problem.side, sizes)
    totals = _totals(problem, rules)
    limits = _caps(sizes, problem)
    limits += [cp.sum(sizes[problem.side == sign]) == total for sign, total in totals.items()]
    measure = rules.weighting.partition("_")[2]
    cost = rules.turnover_cost * cp.norm1(weights - problem.held)
    more: list[Any] = []  # constraints
    if measure == "variance":
        objective = _variance(weights, problem, rules)
    else:
        losses, more = _losses(weights, problem, measure)
        objective = _cvar(losses, rules.cvar_tail)
        objective = objective if rules.weighting.startswith("min_") else rules.risk_aversion * objective
    if rules.weighting.startswith("mean_"):
        mean = (1 - rules.shrinkage) * problem.scenarios[:, -1, : len(problem.side)].mean(axis=0)
        cost = cost - mean @ weights
    _solve(
        cp.Problem(cp.Minimize(objective + cost), limits + more),
        QUADRATIC if measure == "variance" else LINEAR,
    )
    found = np.where(sizes.value > DUST, sizes.value, 0.0)
    return problem.side * np.minimum(found, rules.max_weight)


def _totals(problem: ScenarioProblem, rules: PortfolioRules) -> dict[int, float]:
    """Sum of the absolute weights of each side that the caps allow, by 1 and -1."""
    cp = _cvxpy()
    counts = {sign: int((problem.side == sign).sum()) for sign in problem.budgets}
    used = {sign: budget for sign, budget in problem.budgets.items() if counts[sign]}
    if not len(problem.rooms):
        return {
            sign: min(budget, counts[sign] * rules.max_weight) * (1 - MARGIN) for sign, budget in used.items()
        }
    sizes = cp.Variable(len(problem.side), bounds=[0, rules.max_weight])
    sums = {sign: cp.sum(sizes[problem.side == sign]) for sign in used}
    limits = _caps(sizes, problem) + [sums[sign] <= budget for sign, budget in used.items()]
    _solve(cp.Problem(cp.Maximize(cp.sum(sizes)), limits), LINEAR)
    return {sign: max(float(total.value), 0.0) * (1 - MARGIN) for sign, total in sums.items()}


def _caps(sizes: cp.Variable, problem: ScenarioProblem) -> list[cp.Constraint]:
    """Caps of the industries."""
    members = [problem.groups == group for group in range(len(problem.rooms))]
    rooms = zip(members, problem.rooms, strict=True)
    return [_cvxpy().sum(sizes[own]) <= room for own, room in rooms if own.any()]


def _losses(
    weights: cp.Expression, problem: ScenarioProblem, measure: str
) -> tuple[cp.Expression, list[cp.Constraint]]:
    """(S,) losses of each scenario, or its largest drawdowns, with the constraints that define them."""
    cp = _cvxpy()
    count = len(problem.side)
    chosen, fixed = problem.scenarios[:, :, :count], problem.scenarios[:, :, count:] @ problem.frozen
    if measure == "cvar":
        return -(chosen[:, -1] @ weights) - fixed[:, -1], []
    samples, bars = fixed.shape
    values = cp.reshape(chosen.reshape(-1, count) @ weights, (samples, bars), order="C") + fixed
    peaks = cp.Variable((samples, bars), nonneg=True)  # above the equity at the start, 0 or higher
    falls = cp.Variable(samples, nonneg=True)
    limits = [peaks >= values, cp.reshape(falls, (samples, 1), order="C") >= peaks - values]
    if bars > 1:
        limits.append(peaks[:, 1:] >= peaks[:, :-1])
    return falls, limits


def _cvar(losses: cp.Expression, tail: float) -> cp.Expression:
    cp = _cvxpy()
    threshold = cp.Variable()  # the value at risk at the optimum
    return threshold + cp.sum(cp.pos(losses - threshold)) / (tail * losses.shape[0])


def _variance(weights: cp.Expression, problem: ScenarioProblem, rules: PortfolioRules) -> cp.Expression:
    """The standard deviation to minimize, in the unit of costs, or half the variance against the mean."""
    cp = _cvxpy()
    root, count = shrunk_root(problem.scenarios[:, -1]), len(problem.side)
    deviation = cp.norm2(root[:, :count] @ weights + root[:, count:] @ problem.frozen)
    return deviation if rules.weighting == "min_variance" else rules.risk_aversion / 2 * cp.square(deviation)


def shrunk_root(returns: np.ndarray) -> np.ndarray:
    """(k, k) upper root of the covariance of (S, k) returns, shrunk toward a multiple of the identity."""
    try:
        from sklearn.covariance import ledoit_wolf
    except ImportError as error:
        raise MissingExtra(
            "A shrunk covariance needs scikit-learn: pip install 'kronos-strategies[portfolio]'."
        ) from error
    covariance, _ = ledoit_wolf(returns)
    scale = max(float(np.trace(covariance)) / len(covariance), 1e-300)
    root: np.ndarray = np.linalg.cholesky(covariance + 1e-12 * scale * np.eye(len(covariance))).T
    return root


def _solve(problem: cp.Problem, solver: str) -> None:
    cp = _cvxpy()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Solution may be inaccurate")  # it is refused below
            problem.solve(solver=solver)
    except cp.error.SolverError as error:
        raise UnsolvedError(f"{solver} failed: {error}") from error
    if problem.status != cp.OPTIMAL:
        raise UnsolvedError(f"{solver} finds no optimum, the problem is {problem.status}")


def _cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError as error:
        raise MissingExtra(
            "Weights over scenarios need cvxpy: pip install 'kronos-strategies[portfolio]'."
        ) from error
    return cvxpy
