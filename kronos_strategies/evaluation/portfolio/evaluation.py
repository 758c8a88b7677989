"""Evaluation of a backtest: performance, risk, exposure and comparison with benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from kronos.extras import MissingExtra
from kronos_strategies.evaluation.panel import Grid
from kronos_strategies.evaluation.portfolio.returns import (
    annual_return,
    break_even_bps,
    calmar,
    cost_table,
    deepest_drawdowns,
    is_constant,
    max_drawdown,
    month_table,
    qlib_metrics,
    sharpe,
    sortino,
    volatility,
)
from kronos_strategies.evaluation.portfolio.sharpe import SharpeInference, infer_sharpe
from kronos_strategies.evaluation.significance import mean_test
from kronos_strategies.result import BacktestResult

try:
    from scipy import stats
except ImportError as error:
    raise MissingExtra("Beta is found with scipy: pip install 'kronos-strategies[evaluation]'") from error


@dataclass(frozen=True)
class PortfolioEvaluation:
    """Of one `BacktestResult`. Annualised by `result.bars_per_year`; a rate of zero.

    Attributes:
        result: that it is of.
        books: a row a stream: "net", "gross", then each benchmark by name; columns annual_return, volatility,
            sharpe, sortino, calmar, max_drawdown.
        sharpe: of the net returns, with its interval, PSR and DSR.
        active: a row a benchmark; columns active_return (annual, arithmetic: mean(net - benchmark) * N),
            tracking_error, information_ratio, beta, alpha (annual), correlation, low and high (95 % interval of
            active_return).
        drawdowns: the deepest of net, deepest first; columns start, trough, end (NaT if not recovered), depth,
            bars (below the high). It starts on the first bar below, and ends on the bar that is back.
        months: years x months (1..12) plus column "year", compounded net returns; NaN where there is no bar.
        costs: index basis points of what is traded, 0 to 50; columns annual_return, sharpe, max_drawdown of gross
            less turnover * cost.
        exposure: by datetime; columns gross, net (sums of |weight| and of weight), positions.
        tilts: dates x exposures: weighted mean of the held names' percentile among all names of the date, .5 is
            neutral, a short position counted from the other end; without columns where there are no exposures.
        parity: Qlib's own figures, summed not compounded and of all bars, for comparison with other Qlib runs only.
        parity_invested: the same by the same rule, from the first purchase on.
    """

    result: BacktestResult
    books: pd.DataFrame
    sharpe: SharpeInference
    active: pd.DataFrame
    drawdowns: pd.DataFrame
    months: pd.DataFrame
    costs: pd.DataFrame
    exposure: pd.DataFrame
    tilts: pd.DataFrame
    parity: Mapping[str, float]
    parity_invested: Mapping[str, float]

    @property
    def bars_before(self) -> int:
        """Bars of the backtest before the first purchase, which only Qlib's own figures count."""
        return len(self.result.all_bars) - len(self.result.returns)

    @property
    def break_even_bps(self) -> float:
        """Cost of what is traded, in basis points, that leaves a mean return of zero; NaN without trades."""
        return break_even_bps(self.result.returns["gross"], self.result.turnover)

    def metrics(self) -> dict[str, float]:
        """Flat figures by their names in metrics.json, net of costs unless named gross; NaN where undefined.

        Benchmarks' are under the benchmark's name with underscores, e.g. equal_weight_sharpe and
        beta_equal_weight; parity's under `qlib_...`.
        """
        books, sure = self.books.to_dict("index"), self.sharpe
        net, gross = books["net"], books["gross"]
        figures = {
            "annual_return": net["annual_return"],
            "volatility": net["volatility"],
            "sharpe": net["sharpe"],
            "sharpe_low": sure.low,
            "sharpe_high": sure.high,
            "psr": sure.psr,
            "dsr": sure.dsr,
            "trials": sure.trials,
            "sortino": net["sortino"],
            "calmar": net["calmar"],
            "max_drawdown": net["max_drawdown"],
            "gross_annual_return": gross["annual_return"],
            "gross_sharpe": gross["sharpe"],
            "annual_cost": float(self.result.cost.mean() * self.result.bars_per_year),
            "turnover": float(self.result.turnover.mean()),
            "break_even_bps": self.break_even_bps,
        }
        for name, active in self.active.to_dict("index").items():
            key = str(name).replace(" ", "_")
            of_its_own, beside = books[name], ("beta", "active_return", "information_ratio")
            figures |= {f"{key}_{of}": of_its_own[of] for of in ("annual_return", "sharpe", "max_drawdown")}
            figures |= {f"{of}_{key}": active[of] for of in beside}
        return figures | {f"qlib_{name}": value for name, value in self.parity.items()}


def evaluate_portfolio(
    result: BacktestResult, exposures: pd.DataFrame | None = None, trials: int = 1, seed: int = 0
) -> PortfolioEvaluation:
    """Study a book.

    Args:
        result: of a backtest.
        exposures: indexed (datetime, instrument), of all names that could be held, known at the closes of the
            bars; columns that are not numeric are left out.
        trials: settings that were tried before this one was chosen, itself counted; deflates the Sharpe ratio.
        seed: of the bootstrap.

    Raises:
        ValueError: fewer than one trial, a benchmark named "net" or "gross", or keys that occur twice.
    """
    gross, net, year = result.returns["gross"], result.returns["net"], result.bars_per_year
    if taken := {"net", "gross"} & set(result.benchmarks.columns):
        raise ValueError(
            f"A benchmark is named '{sorted(taken)[0]}', as the book's own returns are. Rename it."
        )
    books, whole = {"net": net, "gross": gross} | dict(result.benchmarks.items()), result.all_bars
    return PortfolioEvaluation(
        result=result,
        books=pd.DataFrame.from_dict({name: _figures(r, year) for name, r in books.items()}, orient="index"),
        sharpe=infer_sharpe(net, year, trials, seed),
        active=active_table(net, result.benchmarks, year),
        drawdowns=deepest_drawdowns(net),
        months=month_table(net),
        costs=cost_table(gross, result.turnover, year),
        exposure=gross_net_exposure(result),
        tilts=pd.DataFrame(index=net.index) if exposures is None else factor_tilts(result, exposures),
        parity=qlib_metrics(whole["net"], whole.drop(columns="net"), result.qlib_bars_per_year),
        parity_invested=qlib_metrics(net, result.benchmarks, result.qlib_bars_per_year),
    )


def _figures(returns: pd.Series, bars_per_year: int) -> dict[str, float]:
    """A row of `PortfolioEvaluation.books`."""
    return {
        "annual_return": annual_return(returns, bars_per_year),
        "volatility": volatility(returns, bars_per_year),
        "sharpe": sharpe(returns, bars_per_year),
        "sortino": sortino(returns, bars_per_year),
        "calmar": calmar(returns, bars_per_year),
        "max_drawdown": max_drawdown(returns),
    }


ROUNDING = 1e-12  # of a return
COLUMNS = (
    "active_return",
    "low",
    "high",
    "tracking_error",
    "information_ratio",
    "beta",
    "alpha",
    "correlation",
)


def active_table(net: pd.Series, benchmarks: pd.DataFrame, bars_per_year: int) -> pd.DataFrame:
    """A row a benchmark, over the bars on which both it and the book have a return.

    Args:
        net: (bars,) by datetime, simple returns of the book.
        benchmarks: by datetime, simple returns, a column each; NaN where unknown.
        bars_per_year: that annualise.

    Returns:
        With N the bars a year and d = net - benchmark, the columns active_return (mean(d) * N, arithmetic), low and
        high (its 95 % interval by `significance.mean_test`), tracking_error (std(d) * sqrt(N)), information_ratio
        (mean(d) / std(d) * sqrt(N), active_return / tracking_error), beta, alpha (Jensen's over a rate of zero,
        mean(net - beta * benchmark) * N) and correlation. A benchmark that equals the book has no interval and no
        information ratio.
    """
    rows = {name: _against(net, benchmark, bars_per_year) for name, benchmark in benchmarks.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS), dtype=float)


def _against(net: pd.Series, benchmark: pd.Series, bars_per_year: int) -> list[float]:
    """One row, in the order of COLUMNS."""
    both = pd.DataFrame({"net": net, "benchmark": benchmark}, dtype=float)
    both = both.where(np.isfinite(both)).dropna()
    difference = both["net"] - both["benchmark"]
    # Equal returns that were computed in two ways differ by rounding, which has a mean and a spread.
    difference = difference.where(difference.abs() > ROUNDING * both.abs().max(axis=1), 0.0)
    test = mean_test(difference)
    year = [bars_per_year * figure for figure in (test.mean, test.low, test.high)]
    ratios = [volatility(difference, bars_per_year), sharpe(difference, bars_per_year)]
    return [*year, *ratios, *_line(both, bars_per_year)]


def _line(both: pd.DataFrame, bars_per_year: int) -> list[float]:
    """Beta, annual alpha and correlation, by least squares; what is constant moves with nothing."""
    if is_constant(both["benchmark"]):
        return [np.nan, np.nan, np.nan]
    line = stats.linregress(both["benchmark"], both["net"])
    correlation = np.nan if is_constant(both["net"]) else float(line.rvalue)
    return [float(line.slope), bars_per_year * float(line.intercept), correlation]


def gross_net_exposure(result: BacktestResult) -> pd.DataFrame:
    """A row a bar: gross and net (sums of |weight| and of weight at its close) and positions; 0 where none is held.

    Raises:
        ValueError: keys of the weights that occur twice, or lack a level.
    """
    grid = Grid.of(cast(pd.MultiIndex, result.weights.index), "weights")
    weights = np.nan_to_num(grid.wide(result.weights.to_numpy(float)))
    sums = pd.DataFrame({"gross": np.abs(weights).sum(axis=1), "net": weights.sum(axis=1)}, index=grid.dates)
    return sums.reindex(result.returns.index, fill_value=0.0).assign(positions=result.positions)


def factor_tilts(result: BacktestResult, exposures: pd.DataFrame) -> pd.DataFrame:
    """Where the names that are held stand among all names: bars x numeric exposures, in (0, 1), .5 is neutral.

    A name's percentile is (average rank - 1/2) / names, among those with a value of the exposure at that close; a
    short position counts from the other end, so that long the highest and short the lowest is a tilt too. The tilt
    is the mean over held names that have a percentile, weighted by |weight|; NaN where there is none.

    Args:
        result: whose weights are at the closes of its bars.
        exposures: indexed (datetime, instrument), known at the same closes, of all names that could be held.
            Columns that are not numeric have no percentile and are left out. NaN and infinite where unknown.

    Raises:
        ValueError: keys of the exposures that occur twice, or lack a level.
    """
    numeric = exposures.select_dtypes("number")
    dates = result.returns.index
    tilts = pd.DataFrame(np.nan, index=dates, columns=numeric.columns)
    if numeric.empty:
        return tilts
    numeric = numeric[numeric.index.get_level_values("datetime").isin(dates)]
    grid = Grid.of(cast(pd.MultiIndex, numeric.index), "exposures")
    weights = _on(grid, result.weights)
    rows = dates.get_indexer(grid.dates)
    for place, name in enumerate(numeric.columns):
        tilts.iloc[rows, place] = _tilt(weights, grid.wide(numeric[name].to_numpy(float)))
    return tilts


def _on(grid: Grid, weights: pd.Series) -> np.ndarray:
    """(dates, names) weights, 0 where nothing is held; a name that is not on the grid has no percentile anyway."""
    row = grid.dates.get_indexer(weights.index.get_level_values("datetime"))
    column = grid.names.get_indexer(weights.index.get_level_values("instrument"))
    known = (row >= 0) & (column >= 0)
    wide = np.zeros((len(grid.dates), len(grid.names)))
    wide[row[known], column[known]] = weights.fillna(0.0).to_numpy(float)[known]
    return wide


def _tilt(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(dates, names) twice -> (dates,)."""
    percentile = (pd.DataFrame(values).rank(axis=1).to_numpy() - 0.5) / np.isfinite(values).sum(axis=1)[
        :, None
    ]
    known = np.isfinite(percentile)
    size = np.abs(np.where(known, weights, 0.0)).sum(axis=1)
    lean = np.where(known, weights * (percentile - 0.5), 0.0).sum(axis=1)
    return 0.5 + lean / np.where(size > 0, size, np.nan)
