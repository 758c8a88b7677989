"""InformationCoefficient: how well a line ranks returns; KronosTearSheet: the report of a run.

Both read bar by bar what the strategy could read, and compute when the run stops, or later when asked. That needs
the extras `evaluation` and `report`, which a run without analyzers does not.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import backtrader as bt
import pandas as pd

from kronos.config import as_integer
from kronos_strategies.backtest_result import BacktestResult, bars_per_year
from kronos_strategies.backtrader.account import AccountRecorder, TradeRecorder, executions
from kronos_strategies.backtrader.feeds import BarClock, FeedHistory, name_feeds
from kronos_strategies.backtrader.run_record import (
    RunRecord,
    describe_run,
    execution_warnings,
    find_forecast_origin,
    path_summaries,
)
from kronos_strategies.backtrader.score_recorder import ScoreRecorder
from kronos_strategies.evaluation.signal.metrics import MIN_INSTRUMENTS

if TYPE_CHECKING:
    from kronos_strategies.report.report import Report
    from kronos_strategies.run_artifacts import RunArtifacts

PRICES = ("open", "close")


class InformationCoefficient(bt.Analyzer):
    """Correlation of a line with the returns that follow, across feeds, at each rebalance.

    The value of the line at the close of bar t is compared with price(t + 1 + hold) / price(t + 1) - 1, with bars
    counted on the union of the ranked feeds' bars: the return of a position that is decided at t, traded on the
    next bar and held until the next rebalance. NaN unless the feed traded on both bars.

        cerebro.addanalyzer(InformationCoefficient, signal="score")
        strategy.analyzers.informationcoefficient.get_analysis()

    Params:
        signal: line of each feed, or of an indicator on it, such as `KronosIndicator`.
        every: strategy bars between rebalances, from the first bar with a value on; 0 for the strategy's own
            parameter `every`, else the indicator's, else 1.
        hold: bars that the return spans; 0 for `every`.
        price: price of the trades, "open" or "close".
        min_instruments: a date with fewer pairs is undefined.

    Raises:
        ValueError: no feed has the line, or a parameter is out of range.
        MissingExtra: scipy or statsmodels is missing.
    """

    params = (("signal", "score"), ("every", 0), ("hold", 0), ("price", "open"), ("min_instruments", 10))

    def start(self) -> None:
        """Find the lines, and fail before a long run rather than after it."""
        from kronos_strategies.evaluation import significance  # noqa: F401

        check_params(self)
        self._feeds = name_feeds(self.strategy.datas)
        self._scores = ScoreRecorder(self.strategy, self._feeds, self.p.signal, self.p.every)
        self._clock = BarClock(self.strategy, self._feeds)

    def next(self) -> None:
        """Read the current bar."""
        self._clock.record()
        self._scores.record()

    def stop(self) -> None:
        """Compute, and drop references to Backtrader, so that an optimization can return the analyzer."""
        from kronos_strategies.evaluation.panel import PricePanel
        from kronos_strategies.evaluation.signal.metrics import icir, information_coefficients
        from kronos_strategies.evaluation.significance import label_overlap, mean_test

        history, recorder = FeedHistory(self._feeds), self._scores
        hold = self.p.hold or recorder.every
        bars = history.panel(list(recorder.sources))
        scores = recorder.to_frame(history, history.strategy_dates(self._clock))["score"].dropna()
        scores = scores[scores.index.isin(bars.index)]
        prices = PricePanel.from_bars(bars)
        label = prices.lookup(prices.forward_return(hold, self.p.price), cast(pd.MultiIndex, scores.index))
        found = (
            information_coefficients(scores, label, self.p.min_instruments)
            if len(scores)
            else _no_coefficients()
        )
        overlap = label_overlap(hold, recorder.every)
        self.rets = {
            "signal": self.p.signal,
            "label": label_name(self.p.price, hold),
            "every": recorder.every,
            "hold": hold,
            "ic": _by_time(found["ic"]),
            "rank_ic": _by_time(found["rank_ic"]),
            "ic_test": asdict(mean_test(found["ic"], overlap)),
            "rank_ic_test": asdict(mean_test(found["rank_ic"], overlap)),
            "icir": float(icir(found["ic"])),
            "rank_icir": float(icir(found["rank_ic"])),
        }
        del self._feeds, self._scores, self._clock

    def get_analysis(self) -> dict[str, Any]:
        """The coefficients, after the run.

        Returns:
            signal, label, every and hold; ic and rank_ic: value by datetime of each rebalance, NaN where undefined;
            ic_test and rank_ic_test: the fields of `significance.MeanTest`, with an interval and t that allow for
            overlapping labels, and a count of undefined dates; icir and rank_icir: mean / standard deviation, not
            annualized.
        """
        return dict(self.rets)


class KronosTearSheet(bt.Analyzer):
    """The report of a run, the same as Qlib's: signal, distribution and portfolio.

        cerebro.addanalyzer(KronosTearSheet, benchmark="SPY", title="Top 10")
        strategy.analyzers.kronostearsheet.save_report("out/report")

    Scores are dated with the bars of their own feeds, resampled ones too. The account must belong to the strategy
    alone. Returns are those of each strategy bar from the bar of the first purchase on; several bars of one date
    are taken together. The first benchmark is the feed named by `benchmark`, followed by all ranked feeds at equal
    weights.

    Fewer feeds than `min_instruments` are evaluated one by one over time, for which the run keeps its forecasts.
    The section on the distribution needs all paths, which are kept if the indicator has a `store`, or in the
    folder `forecasts`.

    Params:
        signal, every, hold, price: see `InformationCoefficient`.
        benchmark: name of a feed; "" for none.
        bars_per_year: bars per year, used to annualize; 0 to infer them from the bars.
        trials: number of settings that were tried before this one was chosen, including it.
        title: title of the report; "" for the strategy's name.
        notice: a warning for the reader, e.g. that the market is simulated.
        forecasts: folder of the `ForecastSet` that `ForecastData` feeds were made from.
        min_instruments: a rebalance that ranks fewer feeds has no coefficient.

    Raises:
        ValueError: no feed has the line or the benchmark's name, or a parameter is out of range.
        MissingExtra: packages for evaluation or report are missing.
    """

    params = (
        ("signal", "score"),
        ("every", 0),
        ("hold", 0),
        ("price", "open"),
        ("benchmark", ""),
        ("bars_per_year", 0),
        ("trials", 1),
        ("title", ""),
        ("notice", ""),
        ("forecasts", ""),
        ("min_instruments", MIN_INSTRUMENTS),
    )

    def start(self) -> None:
        """Find the lines, and record the account before its first bar."""
        from kronos_strategies.report import export  # noqa: F401

        check_params(self)
        self._feeds = name_feeds(self.strategy.datas)
        if self.p.benchmark and self.p.benchmark not in self._feeds:
            raise ValueError(
                f"The benchmark {self.p.benchmark!r} is not a feed. Name one of {', '.join(self._feeds)}."
            )
        self._scores = ScoreRecorder(self.strategy, self._feeds, self.p.signal, self.p.every)
        self._clock = BarClock(self.strategy, self._feeds)
        self._account = AccountRecorder(self.strategy, self._feeds)
        self._trades = TradeRecorder(self.strategy, self._feeds)

    def notify_order(self, order: bt.Order) -> None:
        """Record what an order traded."""
        self._account.record_order(order)
        for bit in executions(order):
            self._trades.record_execution(order.data, bit)

    def next(self) -> None:
        """Read the current bar."""
        self._clock.record()
        self._scores.record()
        self._account.record()

    def stop(self) -> None:
        """Keep the record, and drop references to Backtrader, so that an optimization can return the analyzer."""
        p, history, recorder = self.p, FeedHistory(self._feeds), self._scores
        dates = history.strategy_dates(self._clock)
        performance, weights = self._account.to_frames(dates)
        hold = int(p.hold or recorder.every)
        origin = find_forecast_origin(self.strategy, self._feeds, recorder)
        benchmark = None
        if p.benchmark:
            closes = history.panel([p.benchmark])["close"].droplevel("instrument")
            benchmark = closes.rename(p.benchmark)
        label = label_name(p.price, hold)
        self._record = RunRecord(
            panel=history.panel(list(recorder.sources)),
            scores=recorder.to_frame(history, dates),
            forecast_index=recorder.forecast_index(history),
            path_summaries=path_summaries(recorder, history, origin),
            trades=self._trades.to_frame(history),
            performance=performance,
            weights=weights,
            benchmark=benchmark,
            settings=origin.settings,
            universe=origin.universe,
            level=origin.level,
            signal=p.signal,
            every=recorder.every,
            hold=hold,
            price=p.price,
            daily=history.daily,
            bars_per_year=int(p.bars_per_year or bars_per_year(performance.index)),
            title=p.title or f"{type(self.strategy).__name__} in Backtrader",
            trials=int(p.trials),
            notice=p.notice,
            forecasts=p.forecasts,
            min_instruments=int(p.min_instruments),
            description=describe_run(
                self.strategy, recorder, dates, p.signal, label, origin.settings, history.daily
            ),
            warnings=tuple(execution_warnings(self.strategy, self._account, history)),
        )
        del self._feeds, self._scores, self._clock, self._account, self._trades

    @cached_property
    def result(self) -> BacktestResult:
        """Backtest result of the account, after the run."""
        return self._record.result

    @property
    def trades(self) -> pd.DataFrame:
        """One row per trade, after the run; columns as in `TradeEvaluation.trades`."""
        return self._record.trades

    @cached_property
    def artifacts(self) -> RunArtifacts:
        """All data of the report, after the run.

        Raises:
            ValueError: no feed ever had a score.
        """
        from kronos_strategies.backtrader.artifacts import collect_artifacts

        return collect_artifacts(self._record)

    def build_report(self) -> Report:
        """The report in memory, after the run; computed once.

        Raises:
            ValueError: no feed ever had a score.
        """
        return self._report

    def save_report(self, folder: str | Path) -> list[Path]:
        """Write the report into `folder`: report.html first, metrics.json, CSV files, and the run's artifacts.

        `kronos report` and `kronos compare` read the folder. Equal runs write equal bytes.

        Raises:
            ValueError: no feed ever had a score.
        """
        from kronos_strategies.report.export import save_report
        from kronos_strategies.run_artifacts import ARTIFACTS

        written = save_report(self.build_report(), Path(folder))
        return [*written, self.artifacts.write(Path(folder) / ARTIFACTS)]

    def get_analysis(self) -> dict[str, float]:
        """Metrics of the portfolio and of its trades, by their keys in metrics.json; computed once."""
        return dict(self._metrics)

    @cached_property
    def _report(self) -> Report:
        from kronos_strategies.report.report import build_report

        return build_report(self.artifacts)

    @cached_property
    def _metrics(self) -> dict[str, float]:
        from kronos_strategies.evaluation.portfolio.evaluation import evaluate_portfolio
        from kronos_strategies.evaluation.portfolio.returns import evaluate_trades

        trades = evaluate_trades(self._record.trades).metrics()
        return evaluate_portfolio(self.result, trials=self._record.trials).metrics() | trades


def label_name(price: str, hold: int) -> str:
    """Formula of the return that a score of bar t is compared with."""
    return f"{price}(t+{1 + hold}) / {price}(t+1) - 1"


def check_params(analyzer: bt.Analyzer) -> None:
    """Check the parameters that both analyzers share, and that the run keeps its bars.

    Raises:
        ValueError: names the parameter.
    """
    p, strategy = analyzer.p, analyzer.strategy
    if p.price not in PRICES:
        raise ValueError(
            f"price={p.price!r} is not a price that orders trade at. Choose one of {', '.join(PRICES)}."
        )
    of_sheet = ("trials", "bars_per_year") if hasattr(p, "trials") else ()
    for name in ("every", "hold", "min_instruments", *of_sheet):
        as_integer(name, getattr(p, name))
    if p.hold < 0:
        raise ValueError(f"hold={p.hold} is negative. Pass 1 or more, or 0 to hold until the next rebalance.")
    if strategy.cerebro._exactbars > 0:
        raise ValueError(
            f"{type(analyzer).__name__} reads all bars when the run stops, and exactbars=1 keeps too few. "
            "Run with exactbars=-1 or -2, which also save memory."
        )


def _by_time(series: pd.Series) -> dict[Any, float]:
    times = pd.DatetimeIndex(series.index).to_pydatetime()
    return dict(zip(times, series.tolist(), strict=True))


def _no_coefficients() -> pd.DataFrame:
    return pd.DataFrame({"ic": [], "rank_ic": []}, index=pd.DatetimeIndex([]), dtype=float)
