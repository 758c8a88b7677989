"""MarketInputs: what rules know of the market besides signals and weights, as tables and as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos_strategies.portfolio.dependence import joint_scenarios, past_correlations
from kronos_strategies.portfolio.rules import PortfolioRules
from kronos_strategies.signal import SampledPaths


@dataclass(frozen=True)
class MarketInputs:
    """Inputs of rules in addition to signals and weights, all at the close of the decision.

    Attributes:
        industries: industry by instrument; an instrument without one is not capped.
        amounts: traded amount per bar / equity of the portfolio, by instrument; without one there is no trade if
            the rules limit participation.
        correlations: correlations of returns, instruments x instruments, positive semidefinite; an instrument that
            is missing has the correlation that the rules assume with every other. They take the place of those that
            `correlation_bars` of the rules asks for.
        closes: adjusted closes, bars x instruments, NaN without a bar; the last row is the bar of the decision, and
            `past_bars` before it are enough. Needed for `correlation_bars`, and for weightings over scenarios.
        paths: sampled paths, see `SampledPaths`; needed for weightings over scenarios.
    """

    industries: pd.Series | None = None
    amounts: pd.Series | None = None
    correlations: pd.DataFrame | None = None
    closes: pd.DataFrame | None = None
    paths: SampledPaths | None = None


NO_INPUTS = MarketInputs()


def industry_codes(industries: pd.Series | None, names: pd.Index) -> np.ndarray | None:
    """(n,) number of the industry of each name, -1 for none."""
    if industries is None:
        return None
    codes: np.ndarray = pd.factorize(industries.reindex(names), sort=True)[0]
    return codes


def traded_amounts(amounts: pd.Series | None, names: pd.Index) -> np.ndarray | None:
    """(n,) traded amount per bar / equity, 0 if unknown."""
    if amounts is None:
        return None
    return amounts.reindex(names).fillna(0.0).to_numpy(np.float64)


def place_scenarios(
    paths: SampledPaths, closes: np.ndarray, names: pd.Index, rules: PortfolioRules
) -> np.ndarray:
    """(n, S, B) joint scenarios of n instruments, see `joint_scenarios`; NaN for those without paths.

    Args:
        paths: sampled paths.
        closes: (T, n) adjusted closes of the bars before the date of the paths, as many as there are.
        names: (n,) instruments.
        rules: rules, with `scenario_bars`.

    Raises:
        UnsolvedError: the past is too short.
    """
    scenarios = np.full((len(names), *paths.returns.shape[1:]), np.nan)
    at = names.get_indexer(paths.instruments)
    rows = np.flatnonzero((at >= 0) & np.isfinite(paths.returns).all(axis=(1, 2)))
    rows = rows[np.argsort(at[rows])]
    past = closes[max(0, len(closes) - rules.scenario_bars) :, at[rows]]
    if len(rows):
        scenarios[at[rows]] = joint_scenarios(paths.returns[rows], past, list(names[at[rows]]))
    return scenarios


def joint_paths(market: MarketInputs, names: pd.Index, rules: PortfolioRules) -> np.ndarray | None:
    """(n, S, B) joint scenarios of the paths; None if the rules need none."""
    if not rules.uses_scenarios or market.paths is None or market.closes is None:
        return None
    before = market.closes.iloc[:-1].reindex(columns=names).to_numpy(np.float64)
    return place_scenarios(market.paths, before, names, rules)


def correlation_matrix(market: MarketInputs, names: pd.Index, rules: PortfolioRules) -> np.ndarray | None:
    """(n, n) as given, with the assumed correlation where an instrument is missing, or of past closes."""
    if market.correlations is None:
        if not rules.correlation_bars or market.closes is None:
            return None
        closes = market.closes.iloc[-rules.correlation_bars - 1 :].reindex(columns=names)
        return past_correlations(closes.to_numpy(np.float64), rules.correlation)
    known = market.correlations.reindex(index=names, columns=names).to_numpy(np.float64)
    matrix = np.where(np.isfinite(known), known, rules.correlation)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def check_inputs(rules: PortfolioRules, industries: bool, amounts: bool) -> None:
    """Refuse rules that need what is not known of the market.

    Args:
        rules: rules.
        industries: whether industries are known.
        amounts: whether traded amounts are known.

    Raises:
        ValueError: a constraint needs what is not known.
    """
    if rules.max_industry_weight < 1 and not industries:
        raise ValueError(
            f"max_industry_weight={rules.max_industry_weight:g} needs the industry of each instrument, and none "
            "are given. Pass industries, or leave the rule out."
        )
    if rules.max_participation and not amounts:
        raise ValueError(
            f"max_participation={rules.max_participation:g} needs traded amounts, and none are given. Pass "
            "amounts, or leave the rule out."
        )


def past_bars(rules: PortfolioRules) -> int:
    """Bars before that of the decision whose closes the rules read."""
    return max(rules.correlation_bars, rules.scenario_bars if rules.uses_scenarios else 0)


def check_history(rules: PortfolioRules, closes: bool, paths: bool) -> None:
    """Refuse rules that need past closes or sampled paths that are not given.

    Args:
        rules: rules.
        closes: whether past closes, or correlations, are known.
        paths: whether sampled paths are known.

    Raises:
        ValueError: a rule needs what is not known.
    """
    if rules.correlation_bars and not closes:
        raise ValueError(
            f"correlation_bars={rules.correlation_bars} needs past closes, and none are given. Pass closes, or set "
            "correlation_bars=0 to assume one correlation."
        )
    if rules.uses_scenarios and not (closes and paths):
        missing = "past closes" if paths else "sampled paths"
        raise ValueError(
            f"weighting={rules.weighting!r} needs {missing}, and none are given. Pass them, or weight by "
            "inverse_volatility, which needs the signals alone."
        )
