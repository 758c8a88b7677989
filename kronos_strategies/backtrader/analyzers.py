"""InformationCoefficient: how well a line ranked the returns that followed, as an analyzer.

It reads bar by bar what the strategy could read and computes when the run stops, when the returns are known. That
takes the extra `evaluation`, which a run without analyzers does not need.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import backtrader as bt
import pandas as pd

from kronos.checks import as_integer
from kronos_strategies.backtrader.account import BookTape, TradeTape, executions
from kronos_strategies.backtrader.feeds import Clock, Shown, name_feeds
from kronos_strategies.backtrader.run_record import (
    Recording,
    bars_per_year,
    describe_run,
    forecast_settings,
    outlooks_of,
    remarks,
)
from kronos_strategies.backtrader.score_recorder import ScoreTape
from kronos_strategies.evaluation.signal.ic import MIN_NAMES
from kronos_strategies.result import BacktestResult

if TYPE_CHECKING:
    from kronos_strategies.evidence import Evidence
    from kronos_strategies.report.report import Report


PRICES = ("open", "close")


class InformationCoefficient(bt.Analyzer):
    """How well a line ranks the returns that follow, at each rebalance.

    A line's value at the close of bar t is held against price(t + 1 + hold) / price(t + 1) - 1, bars counted on the
    union of the ranked feeds' bars: what a position earns that is decided at t, trades on the next bar and is held
    until the next rebalance. NaN unless the feed traded on both bars.

        cerebro.addanalyzer(InformationCoefficient, signal="score")
        strategy.analyzers.informationcoefficient.get_analysis()

    Params:
        signal: line of each feed, or of an indicator on it, such as `KronosIndicator`.
        every: strategy bars between rebalances, from the first bar with a value on; 0 takes the strategy's own
            parameter `every`, else the indicator's, else 1.
        hold: bars that the return spans; 0 for `every`.
        price: that is traded at, "open" or "close".
        min_names: a date with fewer pairs is undefined.

    Raises:
        ValueError: no feed has the line, or a parameter is out of range.
        MissingExtra: scipy or statsmodels is missing.
    """

    params = (("signal", "score"), ("every", 0), ("hold", 0), ("price", "open"), ("min_names", 10))

    def start(self) -> None:
        """Find the lines; before a long run, not after it, comes what would stop it."""
        from kronos_strategies.evaluation import significance  # noqa: F401

        check_params(self)
        self._feeds = name_feeds(self.strategy.datas)
        self._scores = ScoreTape(self.strategy, self._feeds, self.p.signal, self.p.every)
        self._clock = Clock(self.strategy, self._feeds)

    def next(self) -> None:
        """Read the current bar."""
        self._clock.see()
        self._scores.see()

    def stop(self) -> None:
        """Compute; let go of the engine, so that an optimisation can hand the analysis on."""
        from kronos_strategies.evaluation.scorecard import Market
        from kronos_strategies.evaluation.signal.ic import coefficients, icir
        from kronos_strategies.evaluation.significance import mean_test, overlap_of

        shown, tape = Shown(self._feeds), self._scores
        hold = self.p.hold or tape.every
        panel = shown.panel(list(tape.sources))
        scores = tape.frame(shown, shown.dates(self._clock))["score"].dropna()
        scores = scores[scores.index.isin(panel.index)]
        market = Market.of(panel)
        label = market.at(market.earned(hold, self.p.price), cast(pd.MultiIndex, scores.index))
        found = coefficients(scores, label, self.p.min_names) if len(scores) else _nothing()
        overlap = overlap_of(hold, tape.every)
        self.rets = {
            "signal": self.p.signal,
            "label": label_of(self.p.price, hold),
            "every": tape.every,
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
        """What was found.

        Returns:
            signal, label, every and hold; ic and rank_ic: value by datetime of each rebalance, NaN where undefined;
            ic_test and rank_ic_test: the fields of `significance.MeanTest`, whose interval and t allow for labels
            that overlap and which counts undefined dates; icir and rank_icir: mean / deviation, not annualised.
        """
        return dict(self.rets)


def label_of(price: str, hold: int) -> str:
    """The return that a score of bar t is held against."""
    return f"{price}(t+{1 + hold}) / {price}(t+1) - 1"


def check_params(analyzer: bt.Analyzer) -> None:
    """Demand of either analyzer a price that there is, a hold, and a run that keeps its bars.

    Raises:
        ValueError: names the parameter.
    """
    p, strategy = analyzer.p, analyzer.strategy
    if p.price not in PRICES:
        raise ValueError(
            f"price={p.price!r} is none that a bar trades at. Choose one of {', '.join(PRICES)}."
        )
    for name in (
        "every",
        "hold",
        "min_names",
        *(("trials", "bars_per_year") if hasattr(p, "trials") else ()),
    ):
        as_integer(name, getattr(p, name))
    if p.hold < 0:
        raise ValueError(f"hold={p.hold} counts bars. Give 1 or more, or 0 to hold until the next rebalance.")
    if strategy.cerebro._exactbars > 0:
        raise ValueError(
            f"{type(analyzer).__name__} reads all bars when the run stops, and exactbars=1 keeps too few. "
            "Run with exactbars=-1 or -2, which save memory too."
        )


def _by_time(series: pd.Series) -> dict[Any, float]:
    times = pd.DatetimeIndex(series.index).to_pydatetime()
    return dict(zip(times, series.tolist(), strict=True))


def _nothing() -> pd.DataFrame:
    return pd.DataFrame({"ic": [], "rank_ic": []}, index=pd.DatetimeIndex([]), dtype=float)


class KronosTearSheet(bt.Analyzer):
    """The report of a run: the same as Qlib's, of signal, distribution and book.

        cerebro.addanalyzer(KronosTearSheet, benchmark="SPY", title="Top 10")
        strategy.analyzers.kronostearsheet.report("out/report")

    Scores are dated with the bars of their own feeds, resampled ones too. The account is taken to be the strategy's
    own. Returns are those of each strategy bar, from the bar of the first purchase on; of several bars of one date
    together. The first benchmark is the feed that `benchmark` names, then come all ranked feeds at equal weights.

    Fewer feeds than `min_names` are judged one by one over time, for which the run keeps what was forecast. The
    section on the distribution needs all paths, which are kept where the indicator has a `store`, or in the folder
    `forecasts`.

    Params:
        signal, every, hold, price: see `InformationCoefficient`.
        benchmark: name of a feed; "" for none.
        bars_per_year: that annualise the book; 0 tells them from the bars.
        trials: settings that were tried before this one was chosen, itself counted.
        title: of the report; "" for the strategy's name.
        notice: a sentence that a reader must see, e.g. that the market is simulated.
        forecasts: folder of the `StoredForecasts` that `ForecastData` feeds brought along.
        min_names: a rebalance that ranks fewer feeds has no coefficient.

    Raises:
        ValueError: no feed has the line or the benchmark's name, or a parameter is out of range.
        MissingExtra: what evaluation or report need is missing.
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
        ("min_names", MIN_NAMES),
    )

    def start(self) -> None:
        """Find the lines and see the account before its first bar."""
        from kronos_strategies.report import build  # noqa: F401

        check_params(self)
        self._feeds = name_feeds(self.strategy.datas)
        if self.p.benchmark and self.p.benchmark not in self._feeds:
            raise ValueError(
                f"No feed is called {self.p.benchmark!r} to be the benchmark; they are {', '.join(self._feeds)}."
            )
        self._scores = ScoreTape(self.strategy, self._feeds, self.p.signal, self.p.every)
        self._clock = Clock(self.strategy, self._feeds)
        self._book = BookTape(self.strategy, self._feeds)
        self._trades = TradeTape(self.strategy, self._feeds)

    def notify_order(self, order: bt.Order) -> None:
        """Take what has traded."""
        self._book.notice(order)
        for bit in executions(order):
            self._trades.notice(order.data, bit)

    def next(self) -> None:
        """Read the current bar."""
        self._clock.see()
        self._scores.see()
        self._book.see()

    def stop(self) -> None:
        """Put everything down; let go of the engine, so that an optimisation can hand it on."""
        shown, tape = Shown(self._feeds), self._scores
        dates = shown.dates(self._clock)
        book, weights = self._book.frame(dates)
        hold = int(self.p.hold or tape.every)
        forecasts = forecast_settings(self.strategy, self._feeds, tape)
        benchmark = None
        if self.p.benchmark:
            benchmark = shown.panel([self.p.benchmark])["close"].droplevel("instrument")
            benchmark = benchmark.rename(self.p.benchmark)
        self._recording = Recording(
            min_names=int(self.p.min_names),
            panel=shown.panel(list(tape.sources)),
            scores=tape.frame(shown, dates),
            made=tape.made(shown),
            outlooks=outlooks_of(self.strategy, tape, shown, forecasts),
            trades=self._trades.frame(shown),
            book=book,
            weights=weights,
            benchmark=benchmark,
            settings=forecasts.settings,
            together=forecasts.together,
            level=forecasts.level,
            line=self.p.signal,
            every=tape.every,
            hold=hold,
            price=self.p.price,
            daily=shown.daily,
            bars_per_year=int(self.p.bars_per_year or bars_per_year(book.index)),
            title=self.p.title or f"{type(self.strategy).__name__} in Backtrader",
            trials=int(self.p.trials),
            notice=self.p.notice,
            forecasts=self.p.forecasts,
            described=describe_run(
                self.strategy,
                tape,
                dates,
                self.p.signal,
                label_of(self.p.price, hold),
                forecasts.settings,
                shown.daily,
            ),
            remarks=tuple(remarks(self.strategy, self._book, shown)),
        )
        del self._feeds, self._scores, self._clock, self._book, self._trades

    @cached_property
    def result(self) -> BacktestResult:
        """Of the account, once the run is over."""
        return self._recording.result

    @property
    def trades(self) -> pd.DataFrame:
        """A row a trade, once the run is over; columns as of `evaluation.portfolio.trades.TradeStudy.trades`."""
        return self._recording.trades

    @cached_property
    def evidence(self) -> Evidence:
        """Everything that the report is computed from, once the run is over.

        Raises:
            ValueError: no feed ever had a score.
        """
        from kronos_strategies.backtrader.artifacts import evidence_of

        return evidence_of(self._recording)

    @cached_property
    def summary(self) -> Report:
        """The report in memory, once the run is over; `report` writes it.

        Raises:
            ValueError: no feed ever had a score.
        """
        from kronos_strategies.report.build import report_on

        return report_on(self.evidence)

    def report(self, folder: str | Path) -> list[Path]:
        """Write the report into `folder`: report.html first, metrics.json, CSVs, and the evidence beside them.

        `kronos report` and `kronos compare` read the folder. Equal runs write equal bytes.

        Raises:
            ValueError: no feed ever had a score.
        """
        written = self.summary.save(Path(folder))
        return [*written, self.evidence.write(Path(folder) / "evidence")]

    def get_analysis(self) -> dict[str, float]:
        """The figures of the book and of its trades, by their names in metrics.json; computed once."""
        return dict(self._figures)

    @cached_property
    def _figures(self) -> dict[str, float]:
        from kronos_strategies.evaluation.portfolio.study import study_portfolio
        from kronos_strategies.evaluation.portfolio.trades import study_trades

        trades = study_trades(self._recording.trades).metrics()
        return study_portfolio(self.result, trials=self._recording.trials).metrics() | trades
