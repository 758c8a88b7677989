"""Kronos forecasts in trading: data, signals, weights, evaluation, reports, and adapters for Qlib and Backtrader.

The names below load on first use, so that `import kronos_strategies` needs no PyTorch, Qlib or Backtrader. The
adapters are `kronos_strategies.qlib` and `kronos_strategies.backtrader`. Names that docs/api.md lists are public;
everything else is internal and may change in any release.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kronos_strategies.backtest import TradingRules, backtest_rules, run_backtest
    from kronos_strategies.backtest_result import BacktestResult
    from kronos_strategies.comparison_inputs import load_artifacts
    from kronos_strategies.data.simulate import MarketConfig, simulate_market
    from kronos_strategies.evaluation.comparison.comparison import compare_versions
    from kronos_strategies.evaluation.comparison.version import Version
    from kronos_strategies.forecast_view.pictures import save_forecast_plot
    from kronos_strategies.lookahead import LookAheadError, check_causal
    from kronos_strategies.portfolio import PortfolioRules, target_weights
    from kronos_strategies.report.export import save_report
    from kronos_strategies.report.figures.forecast import plot
    from kronos_strategies.report.report import build_report
    from kronos_strategies.run_artifacts import RunArtifacts
    from kronos_strategies.signal import signals
    from kronos_strategies.store import ForecastStore

_MODULES = {
    "BacktestResult": "kronos_strategies.backtest_result",
    "ForecastStore": "kronos_strategies.store",
    "LookAheadError": "kronos_strategies.lookahead",
    "MarketConfig": "kronos_strategies.data.simulate",
    "PortfolioRules": "kronos_strategies.portfolio",
    "RunArtifacts": "kronos_strategies.run_artifacts",
    "TradingRules": "kronos_strategies.backtest",
    "Version": "kronos_strategies.evaluation.comparison.version",
    "backtest_rules": "kronos_strategies.backtest",
    "build_report": "kronos_strategies.report.report",
    "check_causal": "kronos_strategies.lookahead",
    "compare_versions": "kronos_strategies.evaluation.comparison.comparison",
    "load_artifacts": "kronos_strategies.comparison_inputs",
    "plot": "kronos_strategies.report.figures.forecast",
    "run_backtest": "kronos_strategies.backtest",
    "save_forecast_plot": "kronos_strategies.forecast_view.pictures",
    "save_report": "kronos_strategies.report.export",
    "signals": "kronos_strategies.signal",
    "simulate_market": "kronos_strategies.data.simulate",
    "target_weights": "kronos_strategies.portfolio",
}

__all__ = [
    "BacktestResult",
    "ForecastStore",
    "LookAheadError",
    "MarketConfig",
    "PortfolioRules",
    "RunArtifacts",
    "TradingRules",
    "Version",
    "backtest_rules",
    "build_report",
    "check_causal",
    "compare_versions",
    "load_artifacts",
    "plot",
    "run_backtest",
    "save_forecast_plot",
    "save_report",
    "signals",
    "simulate_market",
    "target_weights",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name == "__version__":
        return version("kronos-strategies")
    raise AttributeError(
        f"module 'kronos_strategies' has no attribute '{name}'; it has {__all__}, and the engines' classes are in "
        "kronos_strategies.qlib and kronos_strategies.backtrader"
    )


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
