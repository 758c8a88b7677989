"""Evaluation of a backtest: performance, risk, exposure and comparison with benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.panel import PanelIndex
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
from kronos_strategies.evaluation.ranks import average_ranks
from kronos_strategies.evaluation.significance import mean_test

try:
    from scipy import stats
except ImportError as error:
    raise MissingExtra(
        "Regressions on a benchmark need scipy: pip install 'kronos-strategies[evaluation]'"
    ) from error


@dataclass(frozen=True)
class PortfolioEvaluation:
    """Evaluation of one `BacktestResult`, annualized by `result.bars_per_year` with a risk-free rate of zero.

    Attributes:
        result: the backtest.
        performance: one row per series of returns: "net", "gross", then each benchmark by name; columns
            annual_return, volatility, sharpe, sortino, calmar, max_drawdown.
        sharpe: inference on the Sharpe ratio of the net returns.
        active: one row per benchmark, see `benchmark_relative`.
        drawdowns: the deepest drawdowns of net, see `deepest_drawdowns`.
        months: years x months (1..12) plus column "year", compounded net returns; NaN where there is no bar.
        costs: index basis points per unit traded, 0 to 50; columns annual_return, sharpe, max_drawdown of gross
            return minus turnover * cost.
        exposure: exposure by datetime; columns gross, net (sums of |weight| and of weight), positions.
        tilts: dates x exposures, see `factor_tilts`; without columns where there are no exposures.
        qlib_metrics: Qlib's own metrics over all bars, for comparison with other Qlib runs only.
        qlib_metrics_invested: the same metrics from the first purchase on.
    """

    result: BacktestResult
    performance: pd.DataFrame
    sharpe: SharpeInference
    active: pd.DataFrame
    drawdowns: pd.DataFrame
    months: pd.DataFrame
    costs: pd.DataFrame
    exposure: pd.DataFrame
    tilts: pd.DataFrame
    qlib_metrics: Mapping[str, float]
    qlib_metrics_invested: Mapping[str, float]

    @property
    def bars_before(self) -> int:
        """Number of bars before the first purchase, which only Qlib's own metrics include."""
        return len(self.result.all_bars) - len(self.result.returns)

    @property
    def break_even_bps(self) -> float:
        """Cost per unit traded, in basis points, at which the mean return is zero; NaN without trades."""
        return break_even_bps(self.result.returns["gross"], self.result.turnover)

    def metrics(self) -> dict[str, float]:
        """Flat metrics by their names in metrics.json, net of costs unless named gross; NaN where undefined.

        Those of a benchmark contain its name with underscores, e.g. equal_weight_sharpe and beta_equal_weight;
        Qlib's own metrics start with `qlib_`.
        """
        performance, inference = self.performance.to_dict("index"), self.sharpe
        net, gross = performance["net"], performance["gross"]
        found = {
            "annual_return": net["annual_return"],
            "volatility": net["volatility"],
            "sharpe": net["sharpe"],
            "sharpe_low": inference.low,
            "sharpe_high": inference.high,
            "psr": inference.psr,
            "dsr": inference.dsr,
            "trials": inference.trials,
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
            own, relative = performance[name], ("beta", "active_return", "information_ratio")
            found |= {f"{key}_{of}": own[of] for of in ("annual_return", "sharpe", "max_drawdown")}
            found |= {f"{of}_{key}": active[of] for of in relative}
        return found | {f"qlib_{name}": value for name, value in self.qlib_metrics.items()}


def evaluate_portfolio(
    result: BacktestResult,
    exposures: pd.DataFrame | None = None,
    trials: int = 1,
    seed: int = 0,
    trials_deviation: float | None = None,
) -> PortfolioEvaluation:
    """Evaluate a backtest.

    Args:
        result: result of the backtest.
        exposures: indexed (datetime, instrument), of all instruments that could be held, known at the closes of the
            bars; columns that are not numeric are left out.
        trials: number of settings tried before this one was chosen, including it; deflates the Sharpe ratio.
        seed: seed of the bootstrap.
        trials_deviation: standard deviation of the Sharpe ratios per bar of all trials; None if unknown.

    Raises:
        ValueError: fewer than one trial, a benchmark named "net" or "gross", or keys that occur twice.
    """
    gross, net, year = result.returns["gross"], result.returns["net"], result.bars_per_year
    if taken := {"net", "gross"} & set(result.benchmarks.columns):
        raise ValueError(
            f"A benchmark is named '{sorted(taken)[0]}', which is reserved for the portfolio. Rename it."
        )
    performance, whole = {"net": net, "gross": gross} | dict(result.benchmarks.items()), result.all_bars
    return PortfolioEvaluation(
        result=result,
        performance=pd.DataFrame.from_dict(
            {name: _metrics(r, year) for name, r in performance.items()}, orient="index"
        ),
        sharpe=infer_sharpe(net, year, trials, seed, trials_deviation),
        active=benchmark_relative(net, result.benchmarks, year),
        drawdowns=deepest_drawdowns(net),
        months=month_table(net),
        costs=cost_table(gross, result.turnover, year),
        exposure=gross_net_exposure(result),
        tilts=pd.DataFrame(index=net.index) if exposures is None else factor_tilts(result, exposures),
        qlib_metrics=qlib_metrics(whole["net"], whole.drop(columns="net"), result.qlib_bars_per_year),
        qlib_metrics_invested=qlib_metrics(net, result.benchmarks, result.qlib_bars_per_year),
    )


def _metrics(returns: pd.Series, bars_per_year: int) -> dict[str, float]:
    """A row of `PortfolioEvaluation.performance`."""
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


def benchmark_relative(net: pd.Series, benchmarks: pd.DataFrame, bars_per_year: int) -> pd.DataFrame:
    """One row per benchmark, over the bars on which both it and the portfolio have a return.

    Args:
        net: (bars,) by datetime, simple returns of the portfolio.
        benchmarks: simple returns by datetime, one column each; NaN where unknown.
        bars_per_year: bars per year, used to annualize.

    Returns:
        With N the bars per year and d = net - benchmark, the columns active_return (mean(d) * N, arithmetic), low
        and high (its 95 % interval by `significance.mean_test`), tracking_error (std(d) * sqrt(N)),
        information_ratio (mean(d) / std(d) * sqrt(N), active_return / tracking_error), beta, alpha (Jensen's with
        a risk-free rate of zero, mean(net - beta * benchmark) * N) and correlation. A benchmark that equals the
        portfolio has no interval and no information ratio.
    """
    rows = {name: _against(net, benchmark, bars_per_year) for name, benchmark in benchmarks.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS), dtype=float)


def _against(net: pd.Series, benchmark: pd.Series, bars_per_year: int) -> list[float]:
    """One row, in the order of COLUMNS."""
    both = pd.DataFrame({"net": net, "benchmark": benchmark}, dtype=float)
    both = both.where(np.isfinite(both)).dropna()
    difference = both["net"] - both["benchmark"]
    # Equal returns computed in two ways differ by rounding errors, which must not count as a difference.
    difference = difference.where(difference.abs() > ROUNDING * both.abs().max(axis=1), 0.0)
    test = mean_test(difference)
    year = [bars_per_year * figure for figure in (test.mean, test.low, test.high)]
    ratios = [volatility(difference, bars_per_year), sharpe(difference, bars_per_year)]
    return [*year, *ratios, *_line(both, bars_per_year)]


def _line(both: pd.DataFrame, bars_per_year: int) -> list[float]:
    """Beta, annual alpha and correlation by least squares; NaN for constant returns."""
    if is_constant(both["benchmark"]):
        return [np.nan, np.nan, np.nan]
    line = stats.linregress(both["benchmark"], both["net"])
    correlation = np.nan if is_constant(both["net"]) else float(line.rvalue)
    return [float(line.slope), bars_per_year * float(line.intercept), correlation]


def gross_net_exposure(result: BacktestResult) -> pd.DataFrame:
    """One row per bar: gross and net (sums of |weight| and weight at the close) and positions; 0 without holdings.

    Raises:
        ValueError: keys of the weights that occur twice, or lack a level.
    """
    panel = PanelIndex.from_index(cast(pd.MultiIndex, result.weights.index), "weights")
    weights = np.nan_to_num(panel.to_wide(result.weights.to_numpy(float)))
    sums = pd.DataFrame({"gross": np.abs(weights).sum(axis=1), "net": weights.sum(axis=1)}, index=panel.dates)
    return sums.reindex(result.returns.index, fill_value=0.0).assign(positions=result.positions)


def factor_tilts(result: BacktestResult, exposures: pd.DataFrame) -> pd.DataFrame:
    """Mean percentile of the held instruments among all instruments: bars x numeric exposures, in (0, 1).

    The percentile of an instrument is (average rank - 1/2) / instruments, among those with a value of the
    exposure at that close; .5 is neutral. A short position counts from the other end, so that long the highest
    and short the lowest is a tilt too. The tilt is the mean over held instruments with a percentile, weighted by
    |weight|; NaN without any.

    Args:
        result: backtest with weights at the closes of its bars.
        exposures: indexed (datetime, instrument), known at the same closes, of all instruments that could be held.
            Columns that are not numeric are left out. NaN and infinite where unknown.

    Raises:
        ValueError: keys of the exposures that occur twice, or lack a level.
    """
    numeric = exposures.select_dtypes("number")
    dates = result.returns.index
    tilts = pd.DataFrame(np.nan, index=dates, columns=numeric.columns)
    if numeric.empty:
        return tilts
    numeric = numeric[numeric.index.get_level_values("datetime").isin(dates)]
    panel = PanelIndex.from_index(cast(pd.MultiIndex, numeric.index), "exposures")
    weights = _on(panel, result.weights)
    rows = dates.get_indexer(panel.dates)
    for place, name in enumerate(numeric.columns):
        tilts.iloc[rows, place] = _tilt(weights, panel.to_wide(numeric[name].to_numpy(float)))
    return tilts


def _on(panel: PanelIndex, weights: pd.Series) -> np.ndarray:
    """(dates, instruments) weights, 0 without a holding; other instruments have no percentile anyway."""
    row = panel.dates.get_indexer(weights.index.get_level_values("datetime"))
    column = panel.instruments.get_indexer(weights.index.get_level_values("instrument"))
    known = (row >= 0) & (column >= 0)
    wide = np.zeros((len(panel.dates), len(panel.instruments)))
    wide[row[known], column[known]] = weights.fillna(0.0).to_numpy(float)[known]
    return wide


def _tilt(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Two (dates, instruments) arrays -> (dates,)."""
    percentile = (average_ranks(values) - 0.5) / np.isfinite(values).sum(axis=1)[:, None]
    known = np.isfinite(percentile)
    size = np.abs(np.where(known, weights, 0.0)).sum(axis=1)
    lean = np.where(known, weights * (percentile - 0.5), 0.0).sum(axis=1)
    return 0.5 + lean / np.where(size > 0, size, np.nan)
