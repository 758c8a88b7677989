"""Kronos inside Backtrader: `self.k = KronosIndicator(self.data)` in any strategy. Needs the `backtrader` extra.

bars.py and tape.py a feed's traded bars, zones.py on whose clock; timetable.py and ahead.py when its next ones will
be; outlook.py sampled paths -> figures; forecasts.py windows -> figures, computed once; seat.py one asset and its
schedule; hub.py what batches a strategy's assets; indicator.py and band.py its lines; feeds.py stored forecasts as
lines of a feed; optimise.py and plot.py what Backtrader leaves to its user; strategy.py the portfolio rules,
account.py what positions are worth, activity.py which feeds have bars. coefficient.py and tearsheet.py are
analyzers: sources.py which lines they judge, shown.py, scores.py, book.py and trades.py what they read of feeds,
lines and account; recording.py what they leave; describe.py, cautions.py and evidence.py what a report is made
from.
"""

from kronos.utils import MissingExtra

try:
    import backtrader  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        "The Backtrader adapter needs Backtrader: pip install 'kronos-strategies[backtrader]'"
    ) from error

from kronos_strategies.backtrader.band import KronosBand
from kronos_strategies.backtrader.coefficient import InformationCoefficient
from kronos_strategies.backtrader.feeds import ForecastData, join_forecasts, read_forecasts
from kronos_strategies.backtrader.indicator import KronosIndicator
from kronos_strategies.backtrader.optimise import run_optimisation
from kronos_strategies.backtrader.plot import save_plot
from kronos_strategies.backtrader.strategy import KronosRankStrategy, SteppedCommission
from kronos_strategies.backtrader.tearsheet import KronosTearSheet

__all__ = [
    "ForecastData",
    "InformationCoefficient",
    "KronosBand",
    "KronosIndicator",
    "KronosRankStrategy",
    "KronosTearSheet",
    "SteppedCommission",
    "join_forecasts",
    "read_forecasts",
    "run_optimisation",
    "save_plot",
]
