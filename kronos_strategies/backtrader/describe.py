"""What a run was, in words and settings: strategy, feeds, forecasts, broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtrader.band import KronosBand
from kronos_strategies.backtrader.book import BookTape
from kronos_strategies.backtrader.forecasts import ForecastSettings
from kronos_strategies.backtrader.hub import Hub
from kronos_strategies.backtrader.indicator import KronosIndicator, settings_of
from kronos_strategies.backtrader.scores import ScoreTape
from kronos_strategies.backtrader.shown import Shown
from kronos_strategies.backtrader.sources import indicators_of

FEW = 0.02  # of the orders; so many refused ones are worth a word


class Forecasts(NamedTuple):
    """What made the forecasts of a run.

    Attributes:
        settings: of the KronosIndicator that is ranked by; None where there is none.
        together: names of the feeds that share them, which label the store.
        level: of the band.
    """

    settings: ForecastSettings | None
    together: str
    level: float


def forecast_settings(
    strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase], tape: ScoreTape
) -> Forecasts:
    """The settings of the first KronosIndicator that a ranked line is or is computed from, and who shares them."""
    first = next((own for own in tape.forecasts.values() if isinstance(own, KronosIndicator)), None)
    if first is None:
        return Forecasts(None, "", 0.9)
    settings, names = settings_of(first), {data: name for name, data in feeds.items()}
    kronos = (each for each in indicators_of(strategy) if isinstance(each, KronosIndicator | KronosBand))
    together = {
        names[each.data] for each in kronos if (settings_of(each), each.p.every) == (settings, first.p.every)
    }
    return Forecasts(settings, ",".join(sorted(together)), first.p.level)


def outlooks_of(strategy: bt.Strategy, tape: ScoreTape, shown: Shown, forecasts: Forecasts) -> pd.DataFrame:
    """What each forecast said: a row a (datetime, instrument).

    Returns:
        Columns lower and upper, and as far as they are known level, horizon and the closes of the paths at the
        horizon, called by their numbers from 0 on.
    """
    found, settings = tape.bands(shown), forecasts.settings
    if settings is None or settings.samples == 0 or not len(found):
        return found
    first = next(own for own in tape.forecasts.values() if isinstance(own, KronosIndicator))
    known = Hub.of(first).ends(settings, first.p.every)
    missing = np.full(settings.samples, np.nan)  # none at all where a return head alone gives the score
    ends = np.array([known.get(key, missing) for key in found.index], np.float32)
    return found.assign(level=float(forecasts.level), horizon=settings.horizon).join(
        pd.DataFrame(ends, found.index)
    )


def describe_run(
    strategy: bt.Strategy,
    tape: ScoreTape,
    dates: pd.Series,
    line: str,
    label: str,
    settings: ForecastSettings | None,
    daily: bool,
) -> dict[str, str]:
    """What ran, by label, ready to print."""
    names, own = list(tape.sources), next(iter(tape.sources.values()))
    shown = ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:11])}, ... {names[-1]}"
    kind = "the feeds" if isinstance(own, bt.AbstractDataBase) else type(own).__name__
    timed = bool((dates != dates.dt.normalize()).any())
    params = {name: value for name, value in strategy.p._getkwargs().items() if _tells(strategy, name)}
    return {
        "strategy": type(strategy).__name__,
        "its settings": ", ".join(f"{name}={value}" for name, value in params.items()) or "as they come",
        "feeds ranked": f"{len(names)}: {shown}",
        "bars": f"{len(dates):,}, {_moment(dates.iloc[0], timed)} to {_moment(dates.iloc[-1], timed)}",
        "signal": f"{line} of {kind}",
        "label": label,
        "rebalanced": f"every {tape.every} bar{'s' * (tape.every != 1)}",
        **({"score": settings.choice(daily).described} if settings and line == "score" else {}),
        **(
            {"lookback": f"{settings.lookback} traded bars", "horizon": f"{settings.horizon} bars"}
            if settings
            else {}
        ),
        "broker": f"{type(strategy.broker).__name__} of Backtrader {bt.__version__}",
    }


def _moment(date: pd.Timestamp, timed: bool) -> str:
    return f"{date:%Y-%m-%d %H:%M}" if timed else f"{date:%Y-%m-%d}"


def _tells(strategy: bt.Strategy, name: str) -> bool:
    """Whether a parameter is not as it comes; where forecasts are kept is no matter."""
    default = type(strategy).params._getpairs().get(name)
    return name != "store" and getattr(strategy.p, name) != default


def remarks(strategy: bt.Strategy, book: BookTape, shown: Shown) -> Iterator[str]:
    """How orders were filled and what was known then, where a reader would think otherwise."""
    broker = strategy.broker
    for early, fine in shown.early():
        yield (
            f"Bars of {early} are stamped before they are over: while {fine} has bars of the same period still to "
            "come, their close is already shown, and nobody can trade on it. Stamp them with the end of the "
            "period, or let cerebro.resampledata make them."
        )
    if len(strategy.cerebro.runningstrats) > 1:
        yield (
            f"{len(strategy.cerebro.runningstrats)} strategies shared one broker: account, positions and "
            "returns are those of all of them together."
        )
    if getattr(getattr(broker, "p", None), "coc", False):
        yield (
            "Orders filled at the close that they were decided at (set_coc): no result of next-open execution "
            "compares with this."
        )
    if getattr(getattr(broker, "p", None), "coo", False) and strategy.cerebro.p.cheat_on_open:
        yield "Orders were decided with the open known that they filled at (cheat_on_open): nobody can trade so."
    orders = book.refused + book.filled
    if book.refused > FEW * orders:
        yield (
            f"The broker refused {book.refused} of {orders} orders, for want of cash or margin: the book is not "
            "the one that the strategy wanted."
        )
