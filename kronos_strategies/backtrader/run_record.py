"""RunRecord: everything that a run leaves for its report, without references to Backtrader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.backtrader.account import AccountRecorder
from kronos_strategies.backtrader.feeds import FeedHistory
from kronos_strategies.backtrader.forecasts import ForecastSettings
from kronos_strategies.backtrader.indicators import KronosBand, KronosIndicator, settings_of
from kronos_strategies.backtrader.scheduler import ForecastCoordinator
from kronos_strategies.backtrader.score_recorder import ScoreRecorder, iter_indicators
from kronos_strategies.evaluation.warnings import unsolved_warnings

EQUAL_WEIGHT = "equal weight"
MAX_REJECTED = 0.02  # share of the orders above which rejections are reported
MAX_LISTED = 12  # feeds in the description of a run


@dataclass(frozen=True)
class RunRecord:
    """Everything that a run leaves; it can be pickled, so that an optimization can return it.

    Attributes:
        panel: traded bars of the ranked feeds by (datetime, instrument).
        scores: scores by (datetime, instrument), column score: each feed that had started and not ended, at each
            rebalance; NaN without a value.
        forecast_index: (datetime, instrument) of each forecast that the scores use.
        path_summaries: bands and final closes of these forecasts, see the function `path_summaries`; columns level
            and horizon only where they are known.
        trades: see `TradeEvaluation`.
        performance, weights: see `AccountRecorder.to_frames`.
        benchmark: closes of the benchmark feed; None without one.
        settings: settings of the forecasts; None where no KronosIndicator made them.
        universe: instruments that were forecast together, which label their store; "" without settings.
        level: level of their bands.
        signal: line that feeds are ranked by.
        every: bars between rebalances.
        hold: bars that the label spans.
        price: price of the label, "open" or "close".
        daily: whether dates are days.
        bars_per_year: bars per year, used to annualize.
        title, trials, notice, forecasts, min_instruments: see `KronosTearSheet`.
        description: settings of the run, by label.
        warnings: sentences on the execution of the run, for its reader.
    """

    panel: pd.DataFrame
    scores: pd.DataFrame
    forecast_index: pd.MultiIndex
    path_summaries: pd.DataFrame
    trades: pd.DataFrame
    performance: pd.DataFrame
    weights: pd.Series
    benchmark: pd.Series | None
    settings: ForecastSettings | None
    universe: str
    level: float
    signal: str
    every: int
    hold: int
    price: str
    daily: bool
    bars_per_year: int
    title: str
    trials: int
    notice: str
    forecasts: str
    min_instruments: int
    description: dict[str, str]
    warnings: tuple[str, ...]

    @property
    def result(self) -> BacktestResult:
        """Backtest result from the bar of the first purchase on.

        Before, the account holds cash only; it buys at that bar's price, so the benchmarks earn nothing up to its
        close.
        """
        performance, weights = self.performance, self.weights
        held = weights.index.get_level_values("datetime")
        traded = performance.index[performance["turnover"] > 0]
        first = min([*held[:1], *traded[:1]], default=performance.index[0])
        benchmarks = self._benchmarks()
        since = benchmarks.loc[first:].copy()
        since.loc[first] = 0.0
        kept = performance.loc[first:]
        return BacktestResult(
            returns=kept[["gross", "net"]],
            benchmarks=since,
            turnover=kept["turnover"],
            cost=kept["cost"],
            weights=weights.loc[first:] if len(weights) else weights,
            bars_per_year=self.bars_per_year,
            whole=performance[["net"]].join(benchmarks),
        )

    @property
    def index(self) -> pd.MultiIndex:
        """(datetime, instrument) that have a score and a bar."""
        scored = cast(pd.MultiIndex, self.scores.index[np.isfinite(self.scores["score"])])
        return scored[scored.isin(self.panel.index)]

    def _benchmarks(self) -> pd.DataFrame:
        """Returns of the benchmark feed, if any, and of all ranked feeds at equal weights, by name."""
        dates, closes = self.performance.index, self.panel["close"].unstack("instrument")
        found = {EQUAL_WEIGHT: equal_weight(closes, dates)}
        if self.benchmark is not None:
            found = {str(self.benchmark.name): equal_weight(self.benchmark.to_frame(), dates)} | found
        return pd.DataFrame(found)


def equal_weight(closes: pd.DataFrame, dates: pd.Index) -> pd.Series:
    """Return per bar of all feeds at equal weights, rebalanced on each bar, without costs.

    A feed takes part from its second bar to its last. On a bar without a trade it earns 0, and on the next one the
    whole return since its last close.

    Args:
        closes: dates x instruments, NaN where there was no trade.
        dates: dates of the returns.
    """
    wide = closes.reindex(closes.index.union(dates))
    known = wide.ffill().reindex(dates)
    listed = wide.bfill().notna().reindex(dates).to_numpy()
    return known.pct_change(fill_method=None).where(listed).mean(axis=1).fillna(0.0)


class ForecastOrigin(NamedTuple):
    """Origin of the forecasts of a run.

    Attributes:
        settings: settings of the KronosIndicator that feeds are ranked by; None without one.
        universe: instruments that share them, which label the store.
        level: level of the band.
    """

    settings: ForecastSettings | None
    universe: str
    level: float


def find_forecast_origin(
    strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase], scores: ScoreRecorder
) -> ForecastOrigin:
    """Settings of the first KronosIndicator that ranked lines use, and the instruments that share them."""
    first = _first_indicator(scores)
    if first is None:
        return ForecastOrigin(None, "", 0.9)
    settings, names = settings_of(first), {data: name for name, data in feeds.items()}
    indicators = (
        each for each in iter_indicators(strategy) if isinstance(each, KronosIndicator | KronosBand)
    )
    universe = {names[each.data] for each in indicators if settings_of(each) == settings}
    return ForecastOrigin(settings, ",".join(sorted(universe)), first.p.level)


def path_summaries(scores: ScoreRecorder, history: FeedHistory, origin: ForecastOrigin) -> pd.DataFrame:
    """Bands and final closes of each forecast, by (datetime, instrument).

    Returns:
        Columns lower and upper and, as far as they are known, level, horizon and the closes of the paths at the
        horizon, named by their numbers from 0 on.
    """
    found, settings, first = scores.bands(history), origin.settings, _first_indicator(scores)
    if settings is None or first is None or settings.samples == 0 or not len(found):
        return found
    known = ForecastCoordinator.of(first).group(settings).final_closes
    missing = np.full(settings.samples, np.nan)  # for scores of a return head alone
    closes = np.array([known.get(key, missing) for key in found.index], np.float32)
    return found.assign(level=float(origin.level), horizon=settings.horizon).join(
        pd.DataFrame(closes, found.index)
    )


def _first_indicator(scores: ScoreRecorder) -> KronosIndicator | None:
    return next((own for own in scores.forecasts.values() if isinstance(own, KronosIndicator)), None)


def describe_run(
    strategy: bt.Strategy,
    scores: ScoreRecorder,
    dates: pd.Series,
    signal: str,
    label: str,
    settings: ForecastSettings | None,
    daily: bool,
) -> dict[str, str]:
    """Settings of the run, by label, ready to print."""
    names, first = list(scores.sources), next(iter(scores.sources.values()))
    listed = ", ".join(names)
    if len(names) > MAX_LISTED:
        listed = f"{', '.join(names[: MAX_LISTED - 1])}, ... {names[-1]}"
    owner = "the feeds" if isinstance(first, bt.AbstractDataBase) else type(first).__name__
    with_time = bool((dates != dates.dt.normalize()).any())
    params = {name: value for name, value in strategy.p._getkwargs().items() if _is_changed(strategy, name)}
    described = {
        "strategy": type(strategy).__name__,
        "its settings": ", ".join(f"{name}={value}" for name, value in params.items()) or "defaults",
        "feeds ranked": f"{len(names)}: {listed}",
        "bars": f"{len(dates):,}, {_moment(dates.iloc[0], with_time)} to {_moment(dates.iloc[-1], with_time)}",
        "signal": f"{signal} of {owner}",
        "label": label,
        "rebalanced": f"every {scores.every} bar{'s' * (scores.every != 1)}",
    }
    if settings and signal == "score":
        described["score"] = settings.score_choice(daily).described
    if settings:
        described["lookback"] = f"{settings.lookback} traded bars"
        described["horizon"] = f"{settings.horizon} bars"
    return described | {"broker": f"{type(strategy.broker).__name__} of Backtrader {bt.__version__}"}


def _moment(date: pd.Timestamp, with_time: bool) -> str:
    return f"{date:%Y-%m-%d %H:%M}" if with_time else f"{date:%Y-%m-%d}"


def _is_changed(strategy: bt.Strategy, name: str) -> bool:
    """Whether a parameter differs from its default; the place of the store does not matter."""
    default = type(strategy).params._getpairs().get(name)
    return name != "store" and getattr(strategy.p, name) != default


def execution_warnings(
    strategy: bt.Strategy, account: AccountRecorder, history: FeedHistory
) -> Iterator[str]:
    """How orders were filled and what was known at that time, where a reader would assume otherwise."""
    broker = strategy.broker
    for early, finer in history.premature_feeds():
        yield (
            f"Bars of {early} are stamped before they are complete: their close is visible while {finer} still has "
            "bars of the same period to come, so results use future data. Stamp them with the end of the period, "
            "or let cerebro.resampledata make them."
        )
    if len(strategy.cerebro.runningstrats) > 1:
        yield (
            f"{len(strategy.cerebro.runningstrats)} strategies shared one broker: account, positions and "
            "returns are those of all of them together."
        )
    if getattr(getattr(broker, "p", None), "coc", False):
        yield (
            "Orders filled at the close at which they were decided (set_coc); results are not comparable with "
            "execution at the next open."
        )
    if getattr(getattr(broker, "p", None), "coo", False) and strategy.cerebro.p.cheat_on_open:
        yield (
            "Orders were sized with knowledge of the open at which they filled (cheat_on_open); results are not "
            "realistic."
        )
    yield from unsolved_warnings(getattr(strategy, "unsolved", {}))
    orders = account.rejected + account.filled
    if account.rejected > MAX_REJECTED * orders:
        yield (
            f"The broker rejected {account.rejected} of {orders} orders for lack of cash or margin: the portfolio "
            "differs from the strategy's targets."
        )
