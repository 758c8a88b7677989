"""Metrics of one series of returns, by empyrical."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos.extras import MissingExtra
from kronos_strategies.result import BARS_PER_YEAR, QLIB_BARS_PER_YEAR

try:
    import empyrical
    from empyrical.stats import drawdown_series
except ImportError as error:
    raise MissingExtra(
        "Books are judged with empyrical: pip install 'kronos-strategies[evaluation]'"
    ) from error

try:
    import empyrical
except ImportError as error:
    raise MissingExtra(
        "Books are judged with empyrical: pip install 'kronos-strategies[evaluation]'"
    ) from error


def annual_return(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Compound annual growth: (prod(1 + r))**(bars_per_year / n) - 1."""
    with np.errstate(over="ignore"):  # of few bars, to the power of a whole year
        growth = float(empyrical.annual_return(clip_total_loss(returns), annualization=bars_per_year))
    return growth if np.isfinite(growth) else np.nan


def volatility(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Standard deviation (ddof 1) * sqrt(bars_per_year); 0 if constant, NaN for fewer than two bars."""
    returns = defined(returns)
    if len(returns) > 1 and is_constant(returns):
        return 0.0
    return float(empyrical.annual_volatility(returns, annualization=bars_per_year))


def sharpe(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Mean / standard deviation (ddof 1) * sqrt(bars_per_year); NaN if constant."""
    returns = defined(returns)
    if is_constant(returns):
        return np.nan
    return float(empyrical.sharpe_ratio(returns, annualization=bars_per_year))


def sortino(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Mean / sqrt(sum(min(r, 0)**2) / n) * sqrt(bars_per_year), n = all bars; NaN if none is negative."""
    returns = defined(returns)
    if not (returns < 0).any():
        return np.nan  # where empyrical says infinite
    return float(empyrical.sortino_ratio(returns, annualization=bars_per_year))


def calmar(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Compound annual growth / |max drawdown|; NaN if it never falls."""
    fall = max_drawdown(returns)
    return annual_return(returns, bars_per_year) / -fall if fall < 0 else np.nan


def drawdowns(returns: pd.Series) -> pd.Series:
    """Wealth below its running maximum, compounded from 1: (n,) in [-1, 0]; a loss on the first bar counts.

    A bar without a return leaves wealth where it was.
    """
    returns = returns.astype(float)
    if returns.empty:
        return returns  # where empyrical gives a number
    earned = returns.where(np.isfinite(returns), 0.0).clip(lower=-1.0)
    return drawdown_series(earned)


def max_drawdown(returns: pd.Series) -> float:
    """The deepest of `drawdowns`, 0 or negative; NaN for no returns."""
    return float(empyrical.max_drawdown(clip_total_loss(returns)))


def defined(returns: pd.Series) -> pd.Series:
    """Without the bars whose return is NaN or infinite; float64."""
    returns = returns.astype(float)
    return returns[np.isfinite(returns)]


def clip_total_loss(returns: pd.Series) -> pd.Series:
    """`defined`, and no bar loses more than everything: two debts in succession would multiply to a fortune."""
    return defined(returns).clip(lower=-1.0)


def is_constant(returns: pd.Series) -> bool:
    """Whether a spread would be of rounding only; True for fewer than two bars."""
    values = returns.to_numpy(float)
    return len(values) < 2 or bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


MONTHS = range(1, 13)


def month_table(returns: pd.Series) -> pd.DataFrame:
    """Compounded returns: years x months (1..12) plus column "year"; NaN where there is no bar.

    Args:
        returns: (bars,) by datetime, simple returns; a bar without one is left out.
    """
    returns = clip_total_loss(returns)
    if returns.empty:
        return pd.DataFrame(
            index=pd.Index([], name="year", dtype=int), columns=[*MONTHS, "year"], dtype=float
        )
    months = empyrical.aggregate_returns(returns, "monthly").unstack()
    years = empyrical.aggregate_returns(returns, "yearly")
    return months.reindex(columns=MONTHS).assign(year=years).rename_axis(index="year", columns=None)


ROUNDING = 1e-12  # of wealth: nearer than this to its maximum, it is there


def deepest_drawdowns(returns: pd.Series, count: int = 5) -> pd.DataFrame:
    """The deepest falls below an earlier high, deepest first; no rows if it never falls.

    Args:
        returns: (bars,) by datetime, simple returns; a bar without one leaves wealth where it was.
        count: rows at most.

    Returns:
        Columns start (first bar below the high), trough (first of its lowest), end (bar that is back at the high,
        NaT if there is none yet), depth (in [-1, 0)), bars (below the high).
    """
    below = drawdowns(returns)
    dates, depths = pd.DatetimeIndex(below.index), below.to_numpy()
    edges = np.diff((depths < -ROUNDING).astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)  # ends: after the last bar below
    troughs = [a + depths[a:b].argmin() for a, b in zip(starts, ends, strict=True)]
    table = pd.DataFrame(
        {
            "start": dates[starts],
            "trough": dates[np.array(troughs, int)],
            "end": dates.insert(len(dates), pd.NaT)[ends],
            "depth": depths[np.array(troughs, int)],
            "bars": ends - starts,
        }
    )
    return table.sort_values("depth", kind="stable").head(count).reset_index(drop=True)


COST_BPS = (0, 5, 10, 20, 30, 50)
BPS = 1e-4


def cost_table(gross: pd.Series, turnover: pd.Series, bars_per_year: int) -> pd.DataFrame:
    """Figures of gross less turnover * cost: index bps, columns annual_return, sharpe, max_drawdown.

    Args:
        gross: (bars,) simple returns before costs.
        turnover: (bars,) value traded / value of the book, both sides counted, so that a cost is of each side.
        bars_per_year: that annualise.
    """
    nets = {bps: gross - turnover * bps * BPS for bps in COST_BPS}
    rows = {
        bps: {
            "annual_return": annual_return(net, bars_per_year),
            "sharpe": sharpe(net, bars_per_year),
            "max_drawdown": max_drawdown(net),
        }
        for bps, net in nets.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("bps")


def break_even_bps(gross: pd.Series, turnover: pd.Series) -> float:
    """Cost of what is traded, in basis points, that leaves a mean return, and so a Sharpe ratio, of zero.

    Mean gross return / mean turnover. Compound growth ends a little before, for it also pays for volatility.
    Negative for a book that loses before costs; NaN for one that does not trade.
    """
    pairs = pd.DataFrame({"gross": gross, "turnover": turnover}, dtype=float)
    pairs = pairs.where(np.isfinite(pairs)).dropna()
    traded = pairs["turnover"].sum()
    return float(pairs["gross"].sum() / traded / BPS) if traded > 0 else np.nan


def qlib_metrics(
    net: pd.Series, benchmarks: pd.DataFrame, bars_per_year: float = QLIB_BARS_PER_YEAR
) -> dict[str, float]:
    """Qlib's `risk_analysis` of net, and of net less each benchmark ("excess return with cost" over its own).

    Args:
        net: (bars,) by datetime, simple returns; Qlib's own are of all bars of a backtest.
        benchmarks: by datetime, simple returns, a column each.
        bars_per_year: 238 for days, 238 * 240 for minutes.

    Returns:
        net_annualized_return, net_information_ratio, net_max_drawdown, and the same three for each benchmark by
        name, as excess_over_benchmark_annualized_return. NaN where undefined.
    """
    streams = {"net": net}
    streams |= {f"excess_over_{str(name).replace(' ', '_')}": net - b for name, b in benchmarks.items()}
    return {
        f"{of}_{name}": value for of, r in streams.items() for name, value in _risk(r, bars_per_year).items()
    }


def _risk(returns: pd.Series, year: float) -> dict[str, float]:
    returns = defined(returns)
    summed = returns.cumsum()
    ratio = np.nan if is_constant(returns) else returns.mean() / returns.std(ddof=1)
    return {
        "annualized_return": float(returns.mean() * year),
        "information_ratio": float(ratio * np.sqrt(year)),
        "max_drawdown": float((summed - summed.cummax()).min()),
    }
