"""Returns and trades of a portfolio: performance, drawdowns, months, costs, Qlib's own metrics, and round trips.

Returns are simple returns per bar. Bars with a NaN or infinite return are left out. After a total loss there are no
further returns. The risk-free rate is assumed to be zero. An undefined metric is NaN, never 0 and never infinite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.backtest_result import BARS_PER_YEAR, QLIB_BARS_PER_YEAR

try:
    import empyrical
    from empyrical.stats import drawdown_series
except ImportError as error:
    raise MissingExtra(
        "Portfolio metrics need empyrical: pip install 'kronos-strategies[evaluation]'"
    ) from error


def annual_return(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Compound annual growth: (prod(1 + r))**(bars_per_year / n) - 1."""
    with np.errstate(over="ignore"):  # few bars extrapolated to a year may overflow
        growth = float(empyrical.annual_return(clip_total_loss(returns), annualization=bars_per_year))
    return growth if np.isfinite(growth) else np.nan


def volatility(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Standard deviation (ddof 1) * sqrt(bars_per_year); 0 if constant, NaN for fewer than two bars."""
    returns = dropna_finite(returns)
    if len(returns) > 1 and is_constant(returns):
        return 0.0
    return float(empyrical.annual_volatility(returns, annualization=bars_per_year))


def sharpe(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Mean / standard deviation (ddof 1) * sqrt(bars_per_year); NaN if constant."""
    returns = dropna_finite(returns)
    if is_constant(returns):
        return np.nan
    return float(empyrical.sharpe_ratio(returns, annualization=bars_per_year))


def sortino(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Mean / sqrt(sum(min(r, 0)**2) / n) * sqrt(bars_per_year), n = all bars; NaN if none is negative."""
    returns = dropna_finite(returns)
    if not (returns < 0).any():
        return np.nan  # empyrical returns infinity
    return float(empyrical.sortino_ratio(returns, annualization=bars_per_year))


def calmar(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Compound annual growth / |max drawdown|; NaN without a drawdown."""
    depth = max_drawdown(returns)
    return annual_return(returns, bars_per_year) / -depth if depth < 0 else np.nan


def drawdowns(returns: pd.Series) -> pd.Series:
    """Equity relative to its running maximum, compounded from 1: (n,) in [-1, 0]; a first-bar loss counts.

    A bar without a return leaves equity unchanged.
    """
    returns = returns.astype(float)
    if returns.empty:
        return returns  # empyrical returns a number
    return drawdown_series(returns.where(np.isfinite(returns), 0.0).clip(lower=-1.0))


def max_drawdown(returns: pd.Series) -> float:
    """The minimum of `drawdowns`, 0 or negative; NaN without returns."""
    return float(empyrical.max_drawdown(clip_total_loss(returns)))


def dropna_finite(returns: pd.Series) -> pd.Series:
    """Returns without NaN and infinite values; float64."""
    returns = returns.astype(float)
    return returns[np.isfinite(returns)]


def clip_total_loss(returns: pd.Series) -> pd.Series:
    """`dropna_finite`, clipped at -100 %, since the product of two returns below -1 would be positive."""
    return dropna_finite(returns).clip(lower=-1.0)


def is_constant(returns: pd.Series) -> bool:
    """Whether the returns vary by rounding errors only; True for fewer than two bars."""
    values = returns.to_numpy(float)
    return len(values) < 2 or bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


MONTHS = range(1, 13)


def month_table(returns: pd.Series) -> pd.DataFrame:
    """Compounded returns: years x months (1..12) plus column "year"; NaN where there is no bar.

    Args:
        returns: (bars,) by datetime, simple returns; missing ones are left out.
    """
    returns = clip_total_loss(returns)
    if returns.empty:
        return pd.DataFrame(
            index=pd.Index([], name="year", dtype=int), columns=[*MONTHS, "year"], dtype=float
        )
    months = empyrical.aggregate_returns(returns, "monthly").unstack()
    years = empyrical.aggregate_returns(returns, "yearly")
    return months.reindex(columns=MONTHS).assign(year=years).rename_axis(index="year", columns=None)


ROUNDING = 1e-12  # of equity: closer than this to its maximum counts as no drawdown


def deepest_drawdowns(returns: pd.Series, count: int = 5) -> pd.DataFrame:
    """The deepest drawdowns, deepest first; no rows without a drawdown.

    Args:
        returns: (bars,) by datetime, simple returns; a missing return leaves equity unchanged.
        count: maximum number of rows.

    Returns:
        Columns start (first bar below the previous high), trough (first bar at the lowest point), end (bar of the
        recovery, NaT if there is none yet), depth (in [-1, 0)), bars (below the high).
    """
    below = drawdowns(returns)
    dates, depths = pd.DatetimeIndex(below.index), below.to_numpy()
    edges = np.diff((depths < -ROUNDING).astype(np.int8), prepend=0, append=0)
    starts, ends = (
        np.flatnonzero(edges == 1),
        np.flatnonzero(edges == -1),
    )  # ends: one after the last bar below
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
    """Metrics of gross return minus turnover * cost: index bps, columns annual_return, sharpe, max_drawdown.

    Args:
        gross: (bars,) simple returns before costs.
        turnover: (bars,) traded value / equity, purchases plus sales, so that the cost applies to each side.
        bars_per_year: bars per year, used to annualize.
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
    """Cost per unit traded, in basis points, at which the mean return and hence the Sharpe ratio is zero.

    Mean gross return / mean turnover. Compound growth reaches zero at a slightly lower cost, because of volatility.
    Negative for a portfolio that loses money before costs; NaN for one that does not trade.
    """
    pairs = pd.DataFrame({"gross": gross, "turnover": turnover}, dtype=float)
    pairs = pairs.where(np.isfinite(pairs)).dropna()
    traded = pairs["turnover"].sum()
    return float(pairs["gross"].sum() / traded / BPS) if traded > 0 else np.nan


def qlib_metrics(
    net: pd.Series, benchmarks: pd.DataFrame, bars_per_year: float = QLIB_BARS_PER_YEAR
) -> dict[str, float]:
    """Qlib's `risk_analysis` of net returns, and of net minus each benchmark ("excess return with cost").

    For comparison with other Qlib runs only. Qlib sums returns instead of compounding them, uses 238 days per year,
    does not count a drawdown that starts on the first bar, and includes the bars before the first purchase, on
    which the portfolio earns nothing while the benchmark moves. No other metric of this project follows these
    conventions.

    Args:
        net: (bars,) by datetime, simple returns; Qlib itself uses all bars of a backtest.
        benchmarks: simple returns by datetime, one column each.
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
    returns = dropna_finite(returns)
    summed = returns.cumsum()
    ratio = np.nan if is_constant(returns) else returns.mean() / returns.std(ddof=1)
    return {
        "annualized_return": float(returns.mean() * year),
        "information_ratio": float(ratio * np.sqrt(year)),
        "max_drawdown": float((summed - summed.cummax()).min()),
    }


TRADE_COLUMNS = (
    "instrument",
    "side",
    "opened",
    "closed",
    "bars",
    "size",
    "entry",
    "exit",
    "profit",
    "cost",
    "return",
)


@dataclass(frozen=True)
class TradeEvaluation:
    """Evaluation of the closed trades of a run; profits are net of costs.

    Attributes:
        trades: one row per trade in the order in which they opened; columns instrument, side ("long" or "short"),
            opened and closed (datetime of the bar; closed is NaT while it is open), bars held, size (largest number
            bought or sold short), entry and exit (mean prices), profit (money, net), cost (money), return (profit /
            value at entry).
        table: rows "all", "long", "short"; columns trades, hit_rate (share with a profit), profit_factor (profits /
            losses), mean_return, mean_win, mean_loss, best, worst (returns), bars (mean), median_bars, profit.
        open: number of trades that were not closed.
    """

    trades: pd.DataFrame
    table: pd.DataFrame
    open: int

    def metrics(self) -> dict[str, float]:
        """Flat metrics by their names in metrics.json."""
        row = self.table.to_dict("index")["all"]
        names = {
            "trades": "trades",
            "trade_hit_rate": "hit_rate",
            "trade_profit_factor": "profit_factor",
            "trade_return": "mean_return",
            "trade_bars": "bars",
        }
        return {name: float(row[column]) for name, column in names.items()} | {"trades_open": self.open}


def evaluate_trades(trades: pd.DataFrame) -> TradeEvaluation:
    """Evaluate trades as `TradeEvaluation.trades` has them."""
    closed = trades[trades["closed"].notna()]
    sides = {"all": closed, **{side: closed[closed["side"] == side] for side in ("long", "short")}}
    table = pd.DataFrame.from_dict({name: _metrics(own) for name, own in sides.items()}, orient="index")
    return TradeEvaluation(trades.reset_index(drop=True), table, int(trades["closed"].isna().sum()))


def _metrics(trades: pd.DataFrame) -> dict[str, float]:
    profit, returns = trades["profit"].astype(float), trades["return"].astype(float)
    won, lost = profit > 0, profit < 0
    losses = float(-profit[lost].sum())
    return {
        "trades": len(trades),
        "hit_rate": float(won.mean()) if len(trades) else np.nan,
        "profit_factor": float(profit[won].sum()) / losses if losses > 0 else np.nan,
        "mean_return": float(returns.mean()),
        "mean_win": float(returns[won].mean()),
        "mean_loss": float(returns[lost].mean()),
        "best": float(returns.max()),
        "worst": float(returns.min()),
        "bars": float(trades["bars"].mean()),
        "median_bars": float(trades["bars"].median()),
        "profit": float(profit.sum()),
    }
