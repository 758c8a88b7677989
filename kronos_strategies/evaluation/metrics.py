"""The flat figures of one run, by the names they have in metrics.json."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kronos_strategies.evaluation.portfolio.returns import annual_return, max_drawdown, sharpe
from kronos_strategies.evaluation.signal.ic import information_coefficient, summarise
from kronos_strategies.result import BacktestResult


def coefficients(score: pd.Series, label: pd.Series) -> pd.DataFrame:
    """Per-date IC and RankIC of one score: columns ic and rank_ic, NaN where undefined."""
    return pd.DataFrame(
        {
            "ic": information_coefficient(score, label),
            "rank_ic": information_coefficient(score, label, rank=True),
        }
    )


def compare(by_name: Mapping[str, pd.DataFrame], horizon: int) -> pd.DataFrame:
    """One row a score from its `coefficients`: columns ic, rank_ic, rank_icir, rank_ic_t, dates."""
    figures = {name: signal_metrics(frame, horizon) for name, frame in by_name.items()}
    return pd.DataFrame(figures).T[["ic", "rank_ic", "rank_icir", "rank_ic_t", "dates"]]


def signal_metrics(coefficients: pd.DataFrame, horizon: int) -> dict[str, float]:
    """Flat figures of IC and RankIC."""
    ic, rank = (summarise(coefficients[name], horizon) for name in ("ic", "rank_ic"))
    return {
        "ic": ic.mean,
        "icir": ic.ir,
        "ic_t": ic.t,
        "rank_ic": rank.mean,
        "rank_icir": rank.ir,
        "rank_ic_t": rank.t,
        "dates": rank.dates,
        "undefined_dates": rank.undefined,
    }


def portfolio_metrics(result: BacktestResult) -> dict[str, float]:
    """Flat figures of the strategy, net of costs unless named gross, and of both benchmarks."""
    net, year = result.returns["net"], result.bars_per_year
    figures = {
        "annual_return": annual_return(net, year),
        "sharpe": sharpe(net, year),
        "max_drawdown": max_drawdown(net),
        "gross_annual_return": annual_return(result.returns["gross"], year),
        "annual_cost": float(result.cost.mean() * result.bars_per_year),
        "turnover": float(result.turnover.mean()),
    }
    for name, returns in result.benchmarks.items():
        key = str(name).replace(" ", "_")
        figures[f"{key}_annual_return"] = annual_return(returns, year)
        figures[f"{key}_sharpe"] = sharpe(returns, year)
        figures[f"{key}_max_drawdown"] = max_drawdown(returns)
    return figures
