"""Portfolio rules in Qlib's engine without a configuration file: signals, rules and costs -> BacktestResult."""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd
from qlib.backtest import backtest
from qlib.data import D

from kronos_strategies.backtest import TradingRules
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.data.qlib_bins import DAY, end_of
from kronos_strategies.portfolio import PortfolioRules
from kronos_strategies.qlib.artifacts import backtest_result
from kronos_strategies.qlib.strategy import KronosWeightStrategy


def backtest_in_qlib(
    signals: pd.DataFrame,
    rules: PortfolioRules,
    trading: TradingRules,
    every: int,
    equal: pd.Series,
    end: pd.Timestamp,
) -> BacktestResult:
    """Trade rules on signals in Qlib's engine, as `kronos_strategies.backtest.backtest_rules` does without it.

    Call `init_qlib` before. Qlib has no stamp duty or fixed cost in addition to its costs.

    Args:
        signals: indexed (datetime, instrument), known at the close of the date; the columns that the rules read.
        rules: rules of selection and weighting, long only.
        trading: execution, costs, limit, lot and cash.
        every: bars from one rebalance to the next, counted from the first date with signals.
        equal: returns by datetime of all instruments at equal weights, the benchmark.
        end: last bar of the backtest.

    Raises:
        ValueError: the rules sell short, or the costs are of a kind that Qlib does not have.
    """
    if trading.stamp_duty or trading.fixed_cost:
        raise ValueError("Qlib has no stamp duty and no fixed cost. Add them to close_cost and min_cost.")
    reports, _ = backtest(
        start_time=signals.index.get_level_values("datetime").min(),
        end_time=end,
        strategy=KronosWeightStrategy(signal=signals, rules=asdict(rules), every=every),
        executor={
            "class": "SimulatorExecutor",
            "module_path": "qlib.backtest.executor",
            "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
        },
        benchmark=equal,
        account=trading.cash,
        exchange_kwargs={
            "deal_price": trading.price,
            "open_cost": trading.open_cost,
            "close_cost": trading.close_cost,
            "min_cost": trading.min_cost,
            "limit_threshold": trading.limit or None,
            "trade_unit": trading.lot or None,
        },
    )
    traded, held = reports["1day"]
    return backtest_result(traded, held, equal.reindex(traded.index))


def last_tradable(end: pd.Timestamp, freq: str = DAY) -> pd.Timestamp:
    """The last time up to `end` that a backtest can end at: a bar follows; within the day, the day is whole."""
    last = pd.Timestamp(D.calendar(freq=freq)[-1])
    future = pd.DatetimeIndex(D.calendar(freq=freq, future=True))
    if end < future[-1] and (freq == DAY or not ((future > last) & (future <= end)).any()):
        return end
    return pd.Timestamp(future[-2]) if freq == DAY else end_of(last.normalize() - pd.Timedelta(days=1), freq)
