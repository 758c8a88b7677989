"""Kronos in Backtrader: `self.k = KronosIndicator(self.data)` in any strategy. Needs the `backtrader` extra.

From bars to the report:

- feed_bars.py reads a feed's bars in its time zone, sessions.py predicts when the next ones come.
- forecasts.py computes and caches forecasts, scheduler.py decides which feeds are due and batches them.
- indicators.py has their lines, computed in the run or read from a forecast store.
- feeds.py knows which feeds have a bar; strategy.py ranks them and trades, account.py sizes orders, sizer.py those
  of any strategy; market_inputs.py has the past closes and sampled paths that rules read.
- score_recorder.py and account.py record a run bar by bar, run_record.py holds what they recorded.
- analyzers.py and artifacts.py build the report; plot.py draws a run, optimization.py varies its parameters.
"""

from kronos.utils import MissingExtra

try:
    import backtrader  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        "The Backtrader adapter needs Backtrader: pip install 'kronos-strategies[backtrader]'"
    ) from error

from kronos_strategies.backtrader.account import LotSizeCommission
from kronos_strategies.backtrader.analyzers import InformationCoefficient, KronosTearSheet
from kronos_strategies.backtrader.indicators import (
    ForecastData,
    KronosBand,
    KronosIndicator,
    join_forecasts,
    read_forecasts,
)
from kronos_strategies.backtrader.optimization import run_optimization
from kronos_strategies.backtrader.plot import save_plot
from kronos_strategies.backtrader.sizer import KronosSizer
from kronos_strategies.backtrader.strategy import KronosRankStrategy

__all__ = [
    "ForecastData",
    "InformationCoefficient",
    "KronosBand",
    "KronosIndicator",
    "KronosRankStrategy",
    "KronosSizer",
    "KronosTearSheet",
    "LotSizeCommission",
    "join_forecasts",
    "read_forecasts",
    "run_optimization",
    "save_plot",
]
