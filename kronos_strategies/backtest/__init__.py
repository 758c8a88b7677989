"""Backtest of target weights on a price panel without an engine: vectorized over instruments, a loop over bars."""

from kronos_strategies.backtest.run import backtest_rules, equal_weight_returns, run_backtest
from kronos_strategies.backtest.trading import TradingRules

__all__ = ["TradingRules", "backtest_rules", "equal_weight_returns", "run_backtest"]
