"""Signals and current weights -> target weights: one pure function for every engine.

A weight is a fraction of equity, negative for a short position; what is missing to 1 is cash. Qlib, Backtrader and
`kronos backtest` use the same function.
"""

from kronos_strategies.portfolio.dependence import UnsolvedError
from kronos_strategies.portfolio.market import (
    MarketInputs,
    check_history,
    check_inputs,
    past_bars,
    place_scenarios,
)
from kronos_strategies.portfolio.rules import (
    BARS_PER_YEAR,
    SCENARIO_WEIGHTINGS,
    PortfolioRules,
    Side,
    Weighting,
    parse_fields,
    parse_rules,
    rules_of,
    with_fields,
)
from kronos_strategies.portfolio.target import (
    CrossSection,
    cross_section_weights,
    rank_signals,
    target_weights,
)
from kronos_strategies.signal import SampledPaths

__all__ = [
    "BARS_PER_YEAR",
    "SCENARIO_WEIGHTINGS",
    "CrossSection",
    "MarketInputs",
    "PortfolioRules",
    "SampledPaths",
    "Side",
    "UnsolvedError",
    "Weighting",
    "check_history",
    "check_inputs",
    "cross_section_weights",
    "parse_fields",
    "parse_rules",
    "past_bars",
    "place_scenarios",
    "rank_signals",
    "rules_of",
    "target_weights",
    "with_fields",
]
