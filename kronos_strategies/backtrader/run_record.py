"""Recording: what a run leaves behind, from which all that is known of it is computed. Knows no engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtrader.account import BookTape
from kronos_strategies.backtrader.feeds import Shown
from kronos_strategies.backtrader.forecasts import ForecastSettings
from kronos_strategies.backtrader.indicators import KronosBand, KronosIndicator, settings_of
from kronos_strategies.backtrader.scheduler import Hub
from kronos_strategies.backtrader.score_recorder import ScoreTape, indicators_of
from kronos_strategies.result import BARS_PER_YEAR, BacktestResult


@dataclass(frozen=True)
class Recording:
    """All that evidence is gathered from; knows no engine, so that an optimisation can hand it on.

    Attributes:
        panel: traded bars of the ranked feeds by (datetime, instrument).
        scores: by (datetime, instrument), column score: of each feed that had begun and not ended, at each
            rebalance; NaN where it had none.
        made: (datetime, instrument) of each forecast behind the scores.
        outlooks: what these said, see `study_time_series`; columns level and horizon only where they are known.
        trades: see `TradeStudy`.
        book, weights: see `BookTape.frame`.
        benchmark: closes of a feed to hold the book against; None without one.
        settings: of the forecasts; None where no KronosIndicator made them.
        together: names of the feeds that were forecast together, which label their store; "" without settings.
        level: of their bands.
        line: that was ranked by.
        every: bars between rebalances.
        hold: bars that the label spans.
        price: that the label trades at.
        daily: whether dates are days.
        bars_per_year: that annualise the book.
        title, trials, notice, forecasts, min_names: see `KronosTearSheet`.
        described: what ran, by label.
        remarks: sentences on how it ran, that a reader must see.
    """

    panel: pd.DataFrame
    scores: pd.DataFrame
    made: pd.MultiIndex
    outlooks: pd.DataFrame
    trades: pd.DataFrame
    book: pd.DataFrame
    weights: pd.Series
    benchmark: pd.Series | None
    settings: ForecastSettings | None
    together: str
    level: float
    line: str
    every: int
    hold: int
    price: str
    daily: bool
    bars_per_year: int
    title: str
    trials: int
    notice: str
    forecasts: str
    min_names: int
    described: dict[str, str]
    remarks: tuple[str, ...]

    @property
    def result(self) -> BacktestResult:
        """Of the account."""
        closes = self.panel["close"].unstack("instrument")
        return book_result(self.book, self.weights, closes, self.benchmark, self.bars_per_year)

    @property
    def keys(self) -> pd.MultiIndex:
        """(datetime, instrument) that have a score and a bar."""
        scored = cast(pd.MultiIndex, self.scores.index[np.isfinite(self.scores["score"])])
        return scored[scored.isin(self.panel.index)]


EQUAL = "equal weight"


def book_result(
    book: pd.DataFrame,
    weights: pd.Series,
    closes: pd.DataFrame,
    benchmark: pd.Series | None,
    bars_per_year: int,
) -> BacktestResult:
    """A run's result, from the bar of the first purchase on.

    The book holds only cash before and buys at that bar's price, so the benchmarks earn nothing up to its close.

    Args:
        book: by datetime, columns net, gross, turnover, cost.
        weights: by (datetime, instrument), at each close.
        closes: of the feeds, dates x instruments, NaN where there was no trade.
        benchmark: closes of what else the book is held against, named.
        bars_per_year: that annualise it.
    """
    held = weights.index.get_level_values("datetime")
    traded = book.index[book["turnover"] > 0]
    first = min([*held[:1], *traded[:1]], default=book.index[0])
    benchmarks = {EQUAL: equal_weight(closes, book.index)}
    if benchmark is not None:
        named = benchmark.to_frame()
        benchmarks = {str(benchmark.name): equal_weight(named, book.index)} | benchmarks
    whole = book[["net"]].join(pd.DataFrame(benchmarks))
    streams = pd.DataFrame(benchmarks).loc[first:]
    streams.loc[first] = 0.0
    kept = book.loc[first:]
    return BacktestResult(
        returns=kept[["gross", "net"]],
        benchmarks=streams,
        turnover=kept["turnover"],
        cost=kept["cost"],
        weights=weights.loc[first:] if len(weights) else weights,
        bars_per_year=bars_per_year,
        whole=whole,
    )


def equal_weight(closes: pd.DataFrame, dates: pd.Index) -> pd.Series:
    """Return of each bar of all feeds at equal weights, rebalanced on each bar, without costs.

    A feed takes part from its second bar to its last; on a bar without a trade it earns 0, and then the whole move
    since its last close.
    """
    wide = closes.reindex(closes.index.union(dates))
    known = wide.ffill().reindex(dates)
    listed = wide.bfill().notna().reindex(dates).to_numpy()
    return known.pct_change(fill_method=None).where(listed).mean(axis=1).fillna(0.0)


DAYS_A_YEAR, SATURDAY = 365, 5
LONGEST_DAYS = 4  # between bars that are daily; a week is longer
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


def bars_per_year(times: pd.Index) -> int:
    """Told from (bars,) ascending datetimes.

    Bars on weekends tell a market that never closes, 365 days a year, else 252; times that several bars a day, by
    the median of the days. Bars further apart than a day are counted in calendar time, weekly ones 52 a year.
    """
    index = pd.DatetimeIndex(times)
    days, counts = np.unique(index.normalize(), return_counts=True)
    if len(days) > 1:
        step = float(np.median(np.diff(days) / np.timedelta64(1, "D")))
        if step > LONGEST_DAYS:
            return max(1, round(DAYS_A_YEAR / step))
    year = DAYS_A_YEAR if (index.day_of_week >= SATURDAY).any() else BARS_PER_YEAR
    return round(year * float(np.median(counts))) if len(days) else BARS_PER_YEAR
