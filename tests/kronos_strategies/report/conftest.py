"""A report over random numbers: 120 days, two benchmarks, two naive signals."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("plotly")
pytest.importorskip("jinja2")

from kronos_strategies.report.report import Report
from kronos_strategies.result import BacktestResult


@pytest.fixture
def days() -> pd.DatetimeIndex:
    return pd.bdate_range("2023-01-02", periods=120, name="datetime")


@pytest.fixture
def result(days) -> BacktestResult:
    rng = np.random.default_rng(1)
    market = 0.01 * rng.standard_normal(len(days))
    gross = pd.Series(market + 0.001, index=days)
    turnover = pd.Series(rng.uniform(0.1, 0.3, len(days)), index=days)
    cost = 0.002 * turnover
    return BacktestResult(
        returns=pd.DataFrame({"gross": gross, "net": gross - cost}),
        benchmarks=pd.DataFrame({"benchmark": market, "equal weight": market + 0.0003}, index=days),
        turnover=turnover,
        cost=cost,
        positions=pd.Series(50, index=days),
    )


@pytest.fixture
def coefficients(days) -> pd.DataFrame:
    drawn = np.random.default_rng(2).normal(0.03, 0.1, (len(days), 2))
    frame = pd.DataFrame(drawn, index=days, columns=["ic", "rank_ic"])
    frame.iloc[5] = np.nan  # an undefined date
    return frame


@pytest.fixture
def report(result, coefficients) -> Report:
    return Report(
        title="Kronos on csi300",
        metrics={
            "ic": 0.021, "icir": 0.2, "ic_t": 2.4, "rank_ic": 0.0304, "rank_icir": 0.31, "rank_ic_t": 3.456,
            "dates": 119, "undefined_dates": 1,
            "annual_return": 0.123, "sharpe": 1.234, "max_drawdown": -0.0876, "gross_annual_return": 0.2,
            "annual_cost": 0.1, "turnover": 0.2, "benchmark_sharpe": 0.5, "equal_weight_sharpe": -0.25,
            "forecast_seconds": 81.25,
        },
        coefficients=coefficients,
        comparison=pd.DataFrame(
            {
                "ic": [0.021, 0.01, np.nan], "rank_ic": [0.0304, 0.011, np.nan],
                "rank_icir": [0.31, 0.1, np.nan], "rank_ic_t": [3.456, 1.1, np.nan], "dates": [119, 120, 0],
            },
            index=["Kronos", "5-day reversal", "12-1 momentum"],
        ),
        result=result,
        ledger={"member rows": 12000, "no trade that day": 345, "compared": 11655},
        provenance={"model": "kronos-nano", "data sha256": "0f" * 32},
        warnings=["These data are simulated."],
    )  # fmt: skip
