"""All that is asked of a book. Torch-free, engine-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from kronos_strategies.evaluation.portfolio.sharpe import SharpeStudy
from kronos_strategies.result import BacktestResult


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
            bars (from start to end, or to the last bar).
        months: years x months (1..12) plus column "year", compounded net returns; NaN where there is no bar.
        costs: index basis points of what is traded, 0 to 50; columns annual_return, sharpe, max_drawdown of gross
            less turnover * cost.
        exposure: by datetime; columns gross, net (sums of |weight| and of weight), positions.
        tilts: dates x exposures: weighted mean of the held names' percentile among all names of the date, .5 is
            neutral; empty without exposures.
        parity: Qlib's own figures, summed not compounded, for comparison with other Qlib runs only.
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

    def metrics(self) -> dict[str, float]:
        """Flat figures by their names in metrics.json: annual_return, sharpe, sharpe_low, psr, dsr, ..., with
        benchmarks' under the benchmark's name with underscores, and parity's under `qlib_...`.
        """
        raise NotImplementedError


def study_portfolio(
    result: BacktestResult, exposures: pd.DataFrame | None = None, trials: int = 1, seed: int = 0
) -> PortfolioStudy:
    """Study a book.

    Args:
        result: of a backtest.
        exposures: indexed (datetime, instrument), numeric columns, of all names that could be held.
        trials: settings that were tried before this one was chosen, itself counted; deflates the Sharpe ratio.
        seed: of the bootstrap.
    """
    raise NotImplementedError
