"""Portfolios compared with a reference: versions are backtests, metrics are those of their net returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.evaluation.comparison.metrics import means_by_year, paired_table
from kronos_strategies.evaluation.portfolio.returns import (
    annual_return,
    is_constant,
    max_drawdown,
    volatility,
)

BLOCK = 20  # bars of one measurement of realized volatility
MIN_BARS = 3  # of a Sharpe ratio


@dataclass(frozen=True)
class PortfolioVersion:
    """A portfolio to be compared with others.

    Attributes:
        name: short and unique among the compared portfolios.
        result: its backtest.
        target_volatility: volatility per year that it aims at; None without a target.
        provenance: how it was produced, label -> text.
    """

    name: str
    result: BacktestResult
    target_volatility: float | None = None
    provenance: Mapping[str, str] | None = None


def compare_results(
    portfolios: Sequence[PortfolioVersion],
    reference: str | None = None,
    block: int = BLOCK,
    warnings: Sequence[str] = (),
    seed: int = 0,
) -> Comparison:
    """Compare backtests on the bars that all of them have, from the last of their first trades on.

    Differences are paired by bar, so that common moves of all portfolios cancel. The metrics are:

    net_return: net simple return, annualized by the number of bars per year, not compounded.
    sharpe: Sharpe ratio of net returns per year, see `sharpe_contributions`.
    turnover: value traded, purchases and sales, per year as a multiple of equity; lower is better.
    volatility_variation: how far the realized volatility of a block of bars is from its mean over all blocks, as a
        fraction of it, |realized / mean - 1|; lower is better.
    volatility_deviation: the same from the target, where all portfolios have one.

    Args:
        portfolios: two or more with different names and the same number of bars per year.
        reference: name of the portfolio that the others are compared with; the first when omitted.
        block: bars of a block.
        warnings: sentences for the reader.
        seed: seed of the bootstrap of the model confidence set.

    Raises:
        ValueError: fewer than two portfolios, names that occur twice or are unknown, bars of different lengths, a
            block below 2 bars, or no common bar.
    """
    names = [each.name for each in portfolios]
    reference = _check(portfolios, names, reference)
    if block < 2:
        raise ValueError(f"block={block} bars have no volatility. Pass at least 2.")
    common = portfolios[0].result.returns.index
    for each in portfolios[1:]:
        common = common.intersection(each.result.returns.index)
    if not len(common):
        raise ValueError("The portfolios have no common bar. Backtest them on the same dates.")
    by_date = {
        metric: pd.DataFrame({each.name: compute(each, common, block) for each in portfolios})
        for metric, compute in METRICS.items()
    }
    by_date = {
        metric: frame for metric, frame in by_date.items() if frame.notna().all(axis=None) and len(frame)
    }
    union = {stamp for each in portfolios for stamp in each.result.returns.index}
    return Comparison(
        reference=reference,
        versions=tuple(names),
        label_horizon=None,
        overlap=1,
        table=paired_table(by_date, reference, 1, seed),
        by_date=by_date,
        by_year=means_by_year(by_date, reference),
        decay=pd.DataFrame(columns=["version", "horizon", "rank_ic", "low", "high", "dates"]),
        baselines=pd.DataFrame(columns=["version", "metric", "mean", "low", "high", "dates"]),
        sample_counts={
            "bars of any portfolio": len(union),
            "not of all portfolios": len(union) - len(common),
            "compared": len(common),
        },
        warnings=tuple(warnings),
        provenance={each.name: dict(each.provenance or {}) for each in portfolios},
        bars_per_year=portfolios[0].result.bars_per_year,
    )


def _check(portfolios: Sequence[PortfolioVersion], names: Sequence[str], reference: str | None) -> str:
    """The name of the reference."""
    if len(portfolios) < 2:
        raise ValueError(f"A comparison needs two or more portfolios, got {len(portfolios)}.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"{names.count(twice[0])} portfolios are called '{twice[0]}'. Give each a unique name."
        )
    if reference is not None and reference not in names:
        raise ValueError(
            f"The reference '{reference}' is not one of the portfolios, {names}. Name one of them."
        )
    years = {each.name: each.result.bars_per_year for each in portfolios}
    if len(set(years.values())) > 1:
        raise ValueError(
            f"The portfolios have bars of different lengths: {years} a year. Compare equal bars."
        )
    return reference or names[0]


def sharpe_contributions(returns: np.ndarray) -> np.ndarray:
    """(bars,) values whose mean is the Sharpe ratio per bar, and whose standard error is that of the ratio.

    S + z - S / 2 * (z**2 - 1) with z the standardized return: the ratio S plus its influence function (Lo 2002;
    Ledoit & Wolf 2008), so that a test of the mean difference of two such series tests the difference of two Sharpe
    ratios. NaN for fewer than 3 or constant returns.

    Args:
        returns: (bars,) simple returns, finite.
    """
    if len(returns) < MIN_BARS or is_constant(pd.Series(returns)):
        return np.full(len(returns), np.nan)
    z = (returns - returns.mean()) / returns.std()
    ratio = returns.mean() / returns.std(ddof=1)
    contributions: np.ndarray = ratio + z - ratio / 2 * (np.square(z) - 1)
    return contributions


def realized_volatility(returns: pd.Series, block: int, bars_per_year: int) -> pd.Series:
    """Root mean square of the returns of successive blocks, per year, by the last bar of each whole block.

    Args:
        returns: (bars,) by datetime, simple returns.
        block: bars of a block.
        bars_per_year: bars per year.
    """
    whole = len(returns) // block * block
    squares = np.square(returns.to_numpy(float)[:whole]).reshape(-1, block)
    return pd.Series(np.sqrt(squares.mean(axis=1) * bars_per_year), returns.index[block - 1 : whole : block])


def _net_return(portfolio: PortfolioVersion, common: pd.Index, block: int) -> pd.Series:
    return portfolio.result.returns["net"].reindex(common) * portfolio.result.bars_per_year


def _sharpe(portfolio: PortfolioVersion, common: pd.Index, block: int) -> pd.Series:
    net = portfolio.result.returns["net"].reindex(common).to_numpy(float)
    return pd.Series(sharpe_contributions(net) * portfolio.result.bars_per_year**0.5, common)


def _turnover(portfolio: PortfolioVersion, common: pd.Index, block: int) -> pd.Series:
    return portfolio.result.turnover.reindex(common) * portfolio.result.bars_per_year


def _volatility_variation(portfolio: PortfolioVersion, common: pd.Index, block: int) -> pd.Series:
    net = portfolio.result.returns["net"].reindex(common)
    realized = realized_volatility(net, block, portfolio.result.bars_per_year)
    return _relative(realized, float(realized.mean()))


def _volatility_deviation(portfolio: PortfolioVersion, common: pd.Index, block: int) -> pd.Series:
    net = portfolio.result.returns["net"].reindex(common)
    realized = realized_volatility(net, block, portfolio.result.bars_per_year)
    return _relative(realized, np.nan if portfolio.target_volatility is None else portfolio.target_volatility)


def _relative(realized: pd.Series, level: float) -> pd.Series:
    """|realized / level - 1|; NaN where the level is 0 or NaN."""
    return (realized / level - 1).abs() if level > 0 else realized * np.nan


METRICS = {
    "net_return": _net_return,
    "sharpe": _sharpe,
    "turnover": _turnover,
    "volatility_variation": _volatility_variation,
    "volatility_deviation": _volatility_deviation,
}


def summary_table(comparison: Comparison, portfolios: Sequence[PortfolioVersion]) -> pd.DataFrame:
    """One row per portfolio over the common bars.

    Args:
        comparison: comparison of the portfolios.
        portfolios: the same portfolios.

    Returns:
        Frame by name: annual_return (compounded), volatility (per year), max_drawdown and positions (mean number);
        then for each metric M its mean M, M_difference from the reference, and M_interval, half of the 95 %
        interval of that difference.
    """
    common = comparison.by_date["net_return"].index
    rows = {each.name: _performance(each.result, common) for each in portfolios}
    table = pd.DataFrame.from_dict(rows, orient="index")
    for metric in comparison.by_date:
        own = comparison.table[comparison.table["metric"] == metric].set_index("version").loc[table.index]
        table[metric] = own["mean"]
        table[f"{metric}_difference"] = own["difference"]
        table[f"{metric}_interval"] = own["difference_high"] - own["difference"]
    return table


def _performance(result: BacktestResult, common: pd.Index) -> dict[str, float]:
    net = result.returns["net"].reindex(common)
    return {
        "annual_return": annual_return(net, result.bars_per_year),
        "volatility": volatility(net, result.bars_per_year),
        "max_drawdown": max_drawdown(net),
        "positions": float(result.positions.reindex(common).mean()),
    }
