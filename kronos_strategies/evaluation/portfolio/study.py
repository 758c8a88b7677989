"""All that is asked of a book. Torch-free, engine-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.portfolio.active import active_table
from kronos_strategies.evaluation.portfolio.costs import break_even_bps, cost_table
from kronos_strategies.evaluation.portfolio.drawdowns import deepest_drawdowns
from kronos_strategies.evaluation.portfolio.exposure import exposure_by_date, tilts_by_date
from kronos_strategies.evaluation.portfolio.months import month_table
from kronos_strategies.evaluation.portfolio.parity import qlib_figures
from kronos_strategies.evaluation.portfolio.returns import (
    annual_return,
    calmar,
    max_drawdown,
    sharpe,
    sortino,
    volatility,
)
from kronos_strategies.evaluation.portfolio.sharpe import SharpeStudy, study_sharpe


@dataclass(frozen=True)
class PortfolioStudy:
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
    sharpe: SharpeStudy
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


def study_portfolio(
    result: BacktestResult, exposures: pd.DataFrame | None = None, trials: int = 1, seed: int = 0
) -> PortfolioStudy:
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
    return PortfolioStudy(
        result=result,
        books=pd.DataFrame.from_dict({name: _figures(r, year) for name, r in books.items()}, orient="index"),
        sharpe=study_sharpe(net, year, trials, seed),
        active=active_table(net, result.benchmarks, year),
        drawdowns=deepest_drawdowns(net),
        months=month_table(net),
        costs=cost_table(gross, result.turnover, year),
        exposure=exposure_by_date(result),
        tilts=pd.DataFrame(index=net.index) if exposures is None else tilts_by_date(result, exposures),
        parity=qlib_figures(whole["net"], whole.drop(columns="net"), result.qlib_bars_per_year),
        parity_invested=qlib_figures(net, result.benchmarks, result.qlib_bars_per_year),
    )


def _figures(returns: pd.Series, bars_per_year: int) -> dict[str, float]:
    """A row of `PortfolioStudy.books`."""
    return {
        "annual_return": annual_return(returns, bars_per_year),
        "volatility": volatility(returns, bars_per_year),
        "sharpe": sharpe(returns, bars_per_year),
        "sortino": sortino(returns, bars_per_year),
        "calmar": calmar(returns, bars_per_year),
        "max_drawdown": max_drawdown(returns),
    }
